package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/pod"
)

func (a *app) setupCommand() *cobra.Command {
	var o pod.SetupOptions
	c := &cobra.Command{
		Use:     "setup",
		GroupID: "stack",
		Short:   "Make topics, search attributes and tables on the servers",
		Long: `Makes what worker and starter need on the servers: the topics of the channels and of the dead letters,
the search attributes, the tables and their migrations. It may be repeated, and leaves alone what is
there; columns, indexes and checks that your team has added stay. ordersync dev does it by itself.

The dead-letter topic is made to keep its letters without end, as a letter may be the only copy of its event. Where
the topic exists and deletes letters, setup warns, and --fix-retention changes that.` + environment(),
		Example: `  ordersync setup
  export KAFKA_BROKERS=kafka:9092 TEMPORAL_ADDRESS=temporal:7233 MYSQL_DSN='sync:secret@tcp(db:3306)/orders'
  ordersync setup --partitions 24`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case o.Partitions < 1:
				return fmt.Errorf("--partitions %d: give a number from 1 on", o.Partitions)
			case o.ReplicationFactor < 0:
				return fmt.Errorf("--replication-factor %d: give a number from 1 on, or 0 for the brokers' default", o.ReplicationFactor)
			case o.Wait <= 0:
				return fmt.Errorf("--wait %v: give a duration such as 1m", o.Wait)
			}
			return a.setup(c.Context(), o)
		},
	}
	c.Flags().IntVar(&o.Partitions, "partitions", 6, "partitions of each new topic of events")
	c.Flags().IntVar(&o.ReplicationFactor, "replication-factor", 0, "replicas of new topics; 0 is the brokers' default")
	c.Flags().BoolVar(&o.FixRetention, "fix-retention", false, "have the dead-letter topic keep its letters without end, also where it exists")
	c.Flags().DurationVar(&o.Wait, "wait", time.Minute, "how long to wait for each server that is not up")
	return a.withOutput(c)
}

// setupView is what there is after a set-up.
type setupView struct {
	Items []pod.SetupItem `json:"items"`
}

func (a *app) setup(ctx context.Context, o pod.SetupOptions) error {
	cfg, err := a.config(ctx, kafkaBrokers, temporalAddress, mysqlDSN)
	if err != nil {
		return err
	}
	items, err := pod.Setup(ctx, cfg, a.warnings(), o)
	view := setupView{Items: append([]pod.SetupItem{}, items...)}
	printed := a.print(view, func(out io.Writer) error {
		t := newTable(out)
		for _, item := range view.Items {
			state := "was there"
			if item.Created {
				state = "made"
			}
			t.row(item.Kind, item.Name, state, item.Warning)
		}
		return t.flush()
	})
	return errors.Join(err, printed)
}
