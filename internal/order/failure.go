package order

// Failure is why a step could not be done, sorted into what happens next: a permanent one blocks
// the order until somebody acts, every other is retried until it heals.
type Failure struct {
	// Type is the failure in one word, the same for every occurrence of its cause
	// ("CheckViolated"). It is what people filter stuck orders by.
	Type string
	// Permanent tells that the same data will fail again.
	Permanent bool
	// Operator tells that a retry heals it only after somebody has mended the set-up (grants,
	// missing tables), so it is also logged as an error.
	Operator bool
	Err      error
}

func (f *Failure) Error() string { return f.Type + ": " + f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }
