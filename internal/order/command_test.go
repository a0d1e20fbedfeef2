package order_test

import (
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"

	"ordersync/internal/order"
)

func TestCommandsAreOneLineToPaste(t *testing.T) {
	for want, c := range map[string]order.Command{
		"ordersync order 536365":                                            order.ShowCommand("536365"),
		"ordersync order -- -1":                                             order.ShowCommand("-1"),
		"ordersync retry --event-id 3f2a91c0 -- --help":                     order.RetryCommand("--help", "3f2a91c0"),
		"ordersync retry 1":                                                 order.RetryCommand("1", ""),
		"ordersync skip --event-id 3f2a91c0 --reason WHY -- -1":             order.SkipCommand("-1", "3f2a91c0"),
		`ordersync amend --event-id 3f2a91c0 --data-file FILE 'it'\''s $1'`: order.AmendCommand("it's $1", "3f2a91c0"),
		"ordersync replay --order 1":                                        order.ReplayCommand("1"),
		"ordersync deadletter replay --order=-rf":                           order.ReplayLettersCommand("-rf"),
		"ordersync deadletter list --order '=x'":                            order.ListLettersCommand("=x"),
		"ordersync deadletter replay 0/17 --value-file FILE":                order.MendLetterCommand("0/17"),
	} {
		assert.Equal(t, want, c.String())
	}
}

func TestWhatNamesAnEvent(t *testing.T) {
	id := uuid.MustParse("3f2a91c0-da00-593a-8997-9372804d022b")
	for given, want := range map[string]bool{
		"3f2a91c0-da00-593a-8997-9372804d022b":  true,
		"3F2A91C0-DA00-593A-8997-9372804D022B":  true,
		"3f2a91c0da00593a89979372804d022b":      true,
		"3f2a91c0":                              true,
		"3f2a91c0-d":                            true,
		"3f2a91c":                               false, // too few digits
		"3f2a91c1":                              false,
		"":                                      false,
		"--------":                              false,
		"3f2a91c0-da00-593a-8997-9372804d022b0": false,
	} {
		assert.Equal(t, want, order.NamesEvent(given, id), given)
	}
	assert.True(t, order.NamesEvent("ERP-4711", order.ParseEventID("ERP-4711")), "the ERP's own id of it")
	assert.True(t, order.TooShort("3f2a9", id.String()))
	assert.False(t, order.TooShort("3f2a91c0", id.String()))
	assert.False(t, order.TooShort("", id.String()))
	assert.True(t, order.Shortened("3f2a91c0"))
	assert.False(t, order.Shortened("ERP-4711"))
	assert.False(t, order.Shortened(id.String()))
}
