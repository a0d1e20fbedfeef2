//go:build !unix

package erpsim

// reserve keeps no port here; somebody may get it.
func reserve(string) (release func(), err error) { return func() {}, nil }
