package load

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxRecord is the longest record that is read, in bytes: what the dead-letter topic can still hold.
const MaxRecord = 16 << 20

// errTooLong is the error of a line that was passed over.
var errTooLong = fmt.Errorf("the line is longer than %d bytes", MaxRecord)

// Reader cuts a file into records. The file is NDJSON, one record a line; or a stream of JSON values, where
// a value may take several lines and an array is a list of records. Which of the two it is shows at its
// beginning. A UTF-8 byte order mark is left out.
type Reader struct {
	in      *bufio.Reader
	count   int   // lines begun
	bytes   int64 // read, line ends included
	records int
	midLine bool // the last byte read was no line end

	begun  bool
	values *json.Decoder // nil for NDJSON
	array  bool          // the next value is an element of an array
	from   int64         // of bytes: where the next value may begin, at the earliest
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader { return &Reader{in: bufio.NewReaderSize(r, 64<<10)} }

// Next is the next record and the number of the line that it begins on, from 1 on. At the end it is
// io.EOF, and a *FormatError where the file is of another format or empty. A record of NDJSON that is longer
// than MaxRecord is passed over; TooLong recognises its error. After any other error nothing further can be
// read.
func (r *Reader) Next() (record []byte, line int, err error) {
	if !r.begun {
		r.begun = true
		if err := r.begin(); err != nil {
			return nil, 0, err
		}
	}
	next := r.nextLine
	if r.values != nil {
		next = r.nextValue
	}
	record, line, err = next()
	switch {
	case err == nil || TooLong(err):
		r.records++
	case errors.Is(err, io.EOF) && r.records == 0:
		return nil, 0, &FormatError{Format: "empty"}
	}
	return record, line, err
}

// TooLong reports whether Next passed over a record that is too long.
func TooLong(err error) bool { return errors.Is(err, errTooLong) }

// begin looks at what the first read gives. A pipe may give little of a large file.
func (r *Reader) begin() error {
	_, err := r.in.Peek(16) // less than any event, and enough to tell the formats apart
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	head, err := r.in.Peek(r.in.Buffered())
	if err != nil {
		return err
	}
	if f := foreign(head); f != nil {
		return f
	}
	if bytes.HasPrefix(head, utf8Mark) {
		n, err := r.in.Discard(len(utf8Mark))
		if err != nil {
			return err
		}
		r.bytes += int64(n)
		head = head[n:]
	}
	if isStream(head) {
		r.values = json.NewDecoder(valueSource{r})
	}
	return nil
}

// nextLine is the next line that is not blank, without the white space around it.
func (r *Reader) nextLine() ([]byte, int, error) {
	for {
		var text []byte
		size := 0
		for {
			part, err := r.read()
			if errors.Is(err, io.EOF) && size == 0 {
				return nil, 0, err
			}
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, 0, err
			}
			if size += len(part); size > MaxRecord {
				text = nil
			} else {
				text = append(text, part...)
			}
			if err != nil || !r.midLine {
				break
			}
		}
		if size > MaxRecord {
			return nil, r.count, errTooLong
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			return text, r.count, nil
		}
	}
}

// read gives the rest of a line, or as much of it as the buffer holds.
func (r *Reader) read() ([]byte, error) {
	part, err := r.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, io.EOF) && len(part) > 0 {
		err = nil
	}
	if len(part) > 0 {
		if !r.midLine {
			r.count++
		}
		r.midLine = part[len(part)-1] != '\n'
		r.bytes += int64(len(part))
	}
	return part, err
}

// nextValue is the next value of the stream, on one line.
func (r *Reader) nextValue() ([]byte, int, error) {
	for {
		r.from = r.bytes
		if !r.values.More() {
			// The end of the array or of the file, or what does not belong there.
			if _, err := r.values.Token(); err != nil {
				return nil, 0, r.broken(err)
			}
			r.array = false
			continue
		}
		if !r.array && r.firstByte() == '[' {
			if _, err := r.values.Token(); err != nil {
				return nil, 0, r.broken(err)
			}
			r.array = true
			continue
		}
		var value json.RawMessage
		if err := r.values.Decode(&value); err != nil {
			return nil, 0, r.broken(err)
		}
		ends := bytes.Count(value, []byte("\n"))
		line := r.count - ends // the decoder has read no further than the line that the value ends on
		if ends == 0 {
			return value, line, nil
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return nil, 0, r.broken(err)
		}
		return compact.Bytes(), line, nil
	}
}

// firstByte is that of the value which More has found.
func (r *Reader) firstByte() byte {
	var b [1]byte
	_, _ = io.ReadFull(r.values.Buffered(), b[:])
	return b[0]
}

// broken is the error of a stream that cannot be read further.
func (r *Reader) broken(err error) error {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF) && !r.array:
		return io.EOF
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("line %d: the file ends within a JSON value: is it complete?", r.count)
	case errors.As(err, &syntax):
		return fmt.Errorf("line %d: what follows is no JSON: %w", r.count, err)
	default:
		return err
	}
}

// valueSource feeds a decoder line by line: so it never reads beyond the line that its value ends on, and
// the Reader knows on which line a value begins.
type valueSource struct{ *Reader }

func (s valueSource) Read(p []byte) (int, error) {
	if s.bytes-s.from > MaxRecord {
		return 0, fmt.Errorf("line %d: the JSON value is longer than %d bytes", s.count, MaxRecord)
	}
	if _, err := s.in.Peek(1); err != nil {
		return 0, err
	}
	head, err := s.in.Peek(min(len(p), s.in.Buffered()))
	if err != nil {
		return 0, err
	}
	if end := bytes.IndexByte(head, '\n'); end >= 0 {
		head = head[:end+1]
	}
	if !s.midLine {
		s.count++
	}
	s.midLine = head[len(head)-1] != '\n'
	n := copy(p, head)
	s.bytes += int64(n)
	_, err = s.in.Discard(n)
	return n, err
}
