package recordset

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go/compress"
)

const (
	// maxWindow is how far back a zstd frame may refer: what the format asks every decoder for
	// (https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.1.2).
	maxWindow    = 8 << 20
	windowOf8MiB = 13 << 3 // as a frame's header spells it
	// maxSnappy bounds a block of snappy, which is decompressed as a whole: its stored bytes, and what comes out. A block of
	// 1 MiB, the most that a default topic takes, comes to 22 MiB at most.
	maxSnappyStored = 2 << 20
	maxSnappyPlain  = 24 << 20
	// maxPlain is the most that is read of a batch, for the time it takes: 1 MiB of zstd can come to 32 GiB, and a record has 2 GiB at most.
	maxPlain = 512 << 20
)

// decompressors bounds how many batches are decompressed at a time in this process, as each may need some 10 MiB, one of
// snappy 26 MiB. One waits for another for as long as that reads records, and never for what becomes of them. Each place
// keeps its decoder of zstd, nil before the first use: making one costs more than most batches.
var decompressors = func() chan *zstd.Decoder {
	const atOnce = 2
	places := make(chan *zstd.Decoder, atOnce)
	for range atOnce {
		places <- nil
	}
	return places
}()

// decompressed calls read with the plain bytes of a payload.
func decompressed(attributes int16, payload io.Reader, read func(io.Reader) error) error {
	codec := compress.Compression(attributes & compressionBits)
	if codec == compress.None {
		return read(payload)
	}
	decoder := <-decompressors
	defer func() { decompressors <- decoder }()
	readPlain := func(name string, plain io.Reader) error { return read(&bounded{name: name, r: plain, left: maxPlain}) }
	switch codec {
	case compress.Snappy:
		return readPlain("snappy", &snappyReader{r: payload})
	case compress.Zstd:
		header, err := frameHeader(payload)
		if err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		if decoder == nil {
			decoder, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(maxWindow))
			if err != nil {
				return fmt.Errorf("zstd: %w", err)
			}
		}
		if err := decoder.Reset(io.MultiReader(bytes.NewReader(header), payload)); err != nil {
			return fmt.Errorf("zstd: %w", err)
		}
		defer func() { _ = decoder.Reset(nil) }() // lets go of the payload
		return readPlain("zstd", decoder)
	case compress.Gzip, compress.Lz4:
		plain := codec.Codec().NewReader(payload)
		defer plain.Close()
		return readPlain(codec.String(), plain)
	default:
		return fmt.Errorf("its compression is of the unknown kind %d", codec)
	}
}

// bounded reads what comes out of a decompressor, up to a bound. It gives the errors the name of the codec.
type bounded struct {
	name string
	r    io.Reader
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("%s: it comes to more than %d bytes", b.name, maxPlain)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s: %w", b.name, err)
	}
	return n, err
}

// frameHeader reads the begin of a zstd frame, and lowers the window that it declares to maxWindow. A producer with a high
// level declares up to 128 MiB however little it sends, and the decoder allocates what is declared. A frame that does refer
// back further fails, as its references then lie outside of the window.
func frameHeader(r io.Reader) ([]byte, error) {
	const (
		magic         = 0xFD2FB528
		singleSegment = 0x20 // the window is as large as the content, and is not spelled out
	)
	header := make([]byte, 6, 7)
	if n, err := io.ReadFull(r, header); err != nil {
		return header[:n], nil // the decoder says what is wrong with it
	}
	if binary.LittleEndian.Uint32(header) != magic {
		return header, nil
	}
	if header[4]&singleSegment == 0 {
		header[5] = min(header[5], windowOf8MiB)
		return header, nil
	}
	if header[4]>>6 < 2 {
		return header, nil // of less than 64 KiB
	}
	return append(header[:4], header[4]&^singleSegment, windowOf8MiB, header[5]), nil
}

// snappyReader reads snappy as producers of Kafka write it: one block, or blocks in the frames of Xerial's SnappyOutputStream.
type snappyReader struct {
	r      io.Reader
	framed bool
	begun  bool
	ended  bool
	stored []byte
	block  []byte
	plain  []byte // the rest of block
}

// xerial begins what Xerial's SnappyOutputStream writes; two versions of 4 bytes follow.
var xerial = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

func (s *snappyReader) Read(p []byte) (int, error) {
	for len(s.plain) == 0 {
		if s.ended {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// next decompresses the next block.
func (s *snappyReader) next() error {
	if !s.begun {
		s.begun = true
		var head [16]byte
		n, err := io.ReadFull(s.r, head[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		if s.framed = n == len(head) && bytes.HasPrefix(head[:], xerial); !s.framed {
			s.ended = true
			s.stored, err = io.ReadAll(io.LimitReader(io.MultiReader(bytes.NewReader(head[:n]), s.r), maxSnappyStored+1))
			if err != nil {
				return err
			}
			return s.decode()
		}
	}
	var size [4]byte
	if _, err := io.ReadFull(s.r, size[:]); err != nil {
		return err // io.EOF between two blocks
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxSnappyStored {
		return fmt.Errorf("a block of %d bytes is more than %d", n, maxSnappyStored)
	}
	if int(n) > cap(s.stored) {
		s.stored = make([]byte, n)
	}
	s.stored = s.stored[:n]
	if _, err := io.ReadFull(s.r, s.stored); err != nil {
		return io.ErrUnexpectedEOF
	}
	return s.decode()
}

func (s *snappyReader) decode() error {
	if len(s.stored) > maxSnappyStored {
		return fmt.Errorf("a block of more than %d bytes", maxSnappyStored)
	}
	n, err := snappy.DecodedLen(s.stored)
	if err != nil {
		return err
	}
	if n > maxSnappyPlain {
		return fmt.Errorf("a block comes to %d bytes, more than %d", n, maxSnappyPlain)
	}
	s.block, err = snappy.Decode(s.block[:cap(s.block)], s.stored)
	s.plain = s.block
	return err
}
