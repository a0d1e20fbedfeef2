package order

import "time"

// PollState is how far polling has come. It is the result of a poll, and what the next one begins with.
type PollState struct {
	// Cursor is the place in the source up to which everything is acknowledged by Kafka.
	Cursor string `json:"cursor"`
	// From is the time that polling began with where it had no cursor; zero for the source's beginning.
	From time.Time `json:"from,omitzero"`
	// ReadUntil is when the last page was asked for that reached the end of the source: what was visible
	// in the source at that time is in Kafka. Zero if none has.
	ReadUntil time.Time `json:"read_until,omitzero"`
	// ChangedUntil is the source's time of the youngest change that is in Kafka; zero where it tells none.
	ChangedUntil time.Time `json:"changed_until,omitzero"`
	// Bad are digests of what this poll, and BadBefore of what the poll before it, found to be no event or
	// too large. What is read again in the overlap has its dead letter already.
	Bad       []string `json:"bad,omitempty"`
	BadBefore []string `json:"bad_before,omitempty"`
	// BadUntil and BadBeforeUntil are times up to which either has not all of them; zero where it has.
	BadUntil       time.Time `json:"bad_until,omitzero"`
	BadBeforeUntil time.Time `json:"bad_before_until,omitzero"`

	// Derives reports that rows without a version have one that comes from their time. FormerUntil is the youngest
	// change that was read before by a release that did not do that: rows up to it are published as that release
	// did, so that a row that is read again stays the event that it was.
	Derives     bool      `json:"derives,omitempty"`
	FormerUntil time.Time `json:"former_until,omitzero"`
	// AskAll tells that the ledger is asked for every row until the end of the source is reached, as a release without
	// Derives polled last.
	AskAll bool `json:"ask_all,omitempty"`
	// Fall is the last version seen to fall, for some days.
	Fall *VersionFall `json:"fall,omitempty"`

	// What follows is about this poll alone.

	StartedAt time.Time `json:"started_at,omitzero"`
	// Anew tells that it began without the cursor of one before it: the ledger is asked for every row.
	Anew bool `json:"anew,omitempty"`
	// KnownUntil is the ChangedUntil it began with: rows beyond it cannot have been read before.
	KnownUntil time.Time `json:"known_until,omitzero"`
	// PageSize is the number of rows of a page where that is fewer than the task's, which were too much for
	// the source. The next poll tries twice as many.
	PageSize int `json:"page_size,omitempty"`
	// More tells that the end of the source is not reached yet.
	More bool `json:"more,omitempty"`
	// FirstBad says why the first row that is no event is none.
	FirstBad string `json:"first_bad,omitempty"`
	PollCounts
}

// VersionFall is a change of an order whose version is below one that was read before. The shop keeps the data of the
// higher version, so such a change does not reach it.
type VersionFall struct {
	SyncID string `json:"sync_id"`
	// Version is that of the change, Before the one that was read before it.
	Version int64     `json:"version"`
	Before  int64     `json:"before"`
	SeenAt  time.Time `json:"seen_at"`
	// Count is how many changes fell since the first that is remembered.
	Count int64 `json:"count"`
}

// PollCounts are numbers of rows. Read is the sum of the others, as far as pages are dealt with.
type PollCounts struct {
	Pages int64 `json:"pages"`
	Read  int64 `json:"rows"`
	// Published rows are acknowledged by the topics' brokers.
	Published int64 `json:"published"`
	// Known rows were read again and left out: the ledger has them, or Kafka for sure.
	Known int64 `json:"known"`
	// Unversioned rows were left out by a backfill: they have no version, so nothing says what is newer.
	Unversioned int64 `json:"unversioned,omitempty"`
	// Rejected rows are no events, or too large for their topic: they are dead letters, of which
	// DeadLettered went straight to the dead-letter topic. The rest are made by the starter.
	Rejected     int64 `json:"rejected"`
	DeadLettered int64 `json:"dead_lettered"`
	// Repeated rows are rejected ones that were read again, and have their letter.
	Repeated int64 `json:"repeated"`
}

// PollTask is what a poll is to do next.
type PollTask struct {
	State PollState `json:"state"`
	// Begin is set for the first stretch of a poll, which goes back from the cursor by the overlap.
	Begin bool `json:"begin,omitempty"`
	// Overlap is how far before the last row a poll begins again.
	Overlap time.Duration `json:"overlap"`
	// PageSize is the number of rows of a page.
	PageSize int `json:"page_size"`
	// Until leaves out what changed at that time or later; zero for no bound.
	Until time.Time `json:"until,omitzero"`
	// Backfill publishes to the topics of backfills, and versioned events only.
	Backfill bool `json:"backfill,omitempty"`
}
