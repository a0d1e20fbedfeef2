package order

import (
	"strings"

	"github.com/google/uuid"
)

// Command is a command line of ordersync that we propose: its words as the program gets them, without
// the program's name. Every proposal is made here, so that an id which looks like a flag, or holds
// what a shell would expand, reaches the command as it is. WHY and FILE stand for what the person fills in.
type Command []string

// String is the command as a person pastes it into a shell.
func (c Command) String() string { return "ordersync " + c.Words() }

// Words is the command without the program's name, quoted for a shell.
func (c Command) Words() string {
	words := make([]string, len(c))
	for i, word := range c {
		words[i] = Typed(word)
	}
	return strings.Join(words, " ")
}

// about is a command with an order's id as its argument.
func about(syncID string, words ...string) Command {
	if strings.HasPrefix(syncID, "-") {
		words = append(words, "--")
	}
	return append(words, syncID)
}

// of is a command with an order's id as the value of --order.
func of(syncID string, words ...string) Command {
	if strings.HasPrefix(syncID, "-") {
		return append(words, "--order="+syncID)
	}
	return append(words, "--order", syncID)
}

// ShowCommand shows an order.
func ShowCommand(syncID string) Command { return about(syncID, "order") }

// RetryCommand tries the event again that an order is stuck on. eventID is what --event-id takes; the
// flag is left out where it is empty.
func RetryCommand(syncID, eventID string) Command { return signal("retry", syncID, eventID) }

// AmendCommand sends other data for the event that an order is stuck on.
func AmendCommand(syncID, eventID string) Command {
	return signal("amend", syncID, eventID, "--data-file", "FILE")
}

// SkipCommand gives the event up that an order is stuck on.
func SkipCommand(syncID, eventID string) Command {
	return signal("skip", syncID, eventID, "--reason", "WHY")
}

func signal(name, syncID, eventID string, flags ...string) Command {
	words := []string{name}
	if eventID != "" {
		words = append(words, "--event-id", eventID)
	}
	return about(syncID, append(words, flags...)...)
}

// ReplayCommand sends from Kafka what an order lacks.
func ReplayCommand(syncID string) Command { return of(syncID, "replay") }

// ListLettersCommand lists an order's dead letters.
func ListLettersCommand(syncID string) Command { return of(syncID, "deadletter", "list") }

// ReplayLettersCommand sends an order's dead letters again.
func ReplayLettersCommand(syncID string) Command { return of(syncID, "deadletter", "replay") }

// ReplayLetterCommand sends the dead letter at a place again.
func ReplayLetterCommand(place string) Command { return Command{"deadletter", "replay", place} }

// MendLetterCommand sends the dead letter at a place with another value.
func MendLetterCommand(place string) Command {
	return Command{"deadletter", "replay", place, "--value-file", "FILE"}
}

// DiscardLetterCommand notes that the dead letter at a place will not be sent again.
func DiscardLetterCommand(place string) Command {
	return Command{"deadletter", "discard", place, "--why", "WHY"}
}

// ShortID is how many of its first hexadecimal digits are enough of an event's id to name it. Proposed
// commands carry so many.
const ShortID = 8

// NamesEvent returns whether an operator's event_id names the event with that id: by the id itself, by
// the ERP's own event_id, or by the first digits of the id, at least ShortID.
func NamesEvent(given string, id uuid.UUID) bool {
	return given != "" && (ParseEventID(given) == id || NamesID(given, id.String()))
}

// NamesID returns whether given is an id, a UUID, or at least its first ShortID digits.
func NamesID(given, id string) bool { return len(digits(given)) >= ShortID && begins(given, id) }

// TooShort returns whether given is the beginning of an id, with too few digits to name it.
func TooShort(given, id string) bool {
	return given != "" && len(digits(given)) < ShortID && begins(given, id)
}

// Shortened returns whether given can be the beginning of an event's id, and is not the whole of it.
func Shortened(given string) bool {
	n := len(digits(given))
	return n >= ShortID && n < 2*len(uuid.UUID{}) && strings.Trim(digits(given), "0123456789abcdef") == ""
}

func begins(given, id string) bool { return strings.HasPrefix(digits(id), digits(given)) }

func digits(given string) string { return strings.ToLower(strings.ReplaceAll(given, "-", "")) }
