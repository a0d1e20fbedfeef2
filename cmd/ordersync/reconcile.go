package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/order"
	"ordersync/internal/reconcile"
	"ordersync/workflows"
)

// reconcileFlags are those of ordersync reconcile.
type reconcileFlags struct {
	repair, follow, last bool
	by                   string
	pageSize, limit      int
}

func (a *app) reconcileCommand() *cobra.Command {
	var flags reconcileFlags
	c := &cobra.Command{
		Use:     "reconcile",
		GroupID: "operate",
		Short:   "Compare the ERP with the shop's database, order by order; repair what drifted",
		Long: `Compares every order of the ERP with the shop's database and the other way round: versions, and data by
its meaning, but neither status nor invoices. A workflow does it on a worker that has ERP_SOURCE; this command
starts it, or joins the one under way, and follows it. It goes on if the command is interrupted. The findings:

  missing     the shop lacks the order
  stale       the shop's version is below the ERP's
  different   the same version, or none on one side, and other data
  amended     drifted, because an operator amended or skipped what the ERP sent
  ahead       the shop's version is above the ERP's
  extra       the ERP lacks the order
  on_its_way  no drift yet: changed since the last poll or still in Kafka, or its workflow is not done

--repair publishes the ERP's state of each order that is missing, stale or different as a new event, which
takes the way of all events; the order's audit names it. The rest is for people to judge. If the ERP changes
an order without versions just then, the repair may come after that change and put the older data back: the
next comparison tells it as different.

The command fails if drift is left that was not repaired, or rows of the ERP could not be read. Orders on their
way and amended ones are no drift.`,
		Example: `  ordersync reconcile
  ordersync reconcile --repair && ordersync wait && ordersync reconcile
  ordersync reconcile --last -o json | jq -r '.findings[] | select(.class == "missing").sync_id'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case flags.last && (flags.repair || c.Flags().Changed("follow")):
				return errors.New("--last shows what the last reconcile has found: it neither repairs nor follows")
			case flags.limit < 0 || flags.limit > order.MaxFindings:
				return fmt.Errorf("--limit %d: give a number from 0 to %d", flags.limit, order.MaxFindings)
			case flags.pageSize < 0 || flags.pageSize > maxPageSize:
				return fmt.Errorf("--page-size %d: give a number from 1 to %d, or 0 for the default", flags.pageSize, maxPageSize)
			}
			return a.reconcile(c.Context(), flags)
		},
	}
	c.Flags().BoolVar(&flags.repair, "repair", false, "publish the ERP's state of what is missing, stale or different")
	c.Flags().BoolVar(&flags.follow, "follow", true, "wait for the end and print what was found")
	c.Flags().BoolVar(&flags.last, "last", false, "show what the last one found, and start none")
	c.Flags().StringVar(&flags.by, "by", "", "who does it, for the audit (default: user@host)")
	c.Flags().IntVar(&flags.limit, "limit", 100, fmt.Sprintf("findings in the table at most; all are counted, and -o json has up to %d", order.MaxFindings))
	c.Flags().IntVar(&flags.pageSize, "page-size", 0, fmt.Sprintf("orders compared at a time (default %d)", reconcile.DefaultPageSize))
	return a.withOutput(c)
}

// maxPageSize is the most orders that are compared at a time.
const maxPageSize = 10_000

func (a *app) reconcile(ctx context.Context, flags reconcileFlags) error {
	cfg, temporal, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()

	if flags.last {
		report, err := reconcile.Last(ctx, temporal, cfg.Temporal.TaskQueue)
		if errors.Is(err, reconcile.ErrNone) {
			return fmt.Errorf("%w, as far as Temporal remembers; start one: %s", err, a.hint("reconcile"))
		}
		if err != nil {
			return err
		}
		return a.reportReconcile(report, flags.limit)
	}

	by := cmp.Or(flags.by, a.knownPerson(), "unknown")
	if flags.repair {
		if by, err = a.person(ctx, flags.by); err != nil {
			return err
		}
	}
	run, err := reconcile.Start(ctx, temporal, cfg.Temporal.TaskQueue, workflows.ReconcileInput{
		Repair: flags.repair, PageSize: flags.pageSize, By: by,
	})
	if err != nil {
		return err
	}
	follow := a.hint("reconcile")
	switch {
	case run.Ours:
	case flags.repair && !run.Input.Repair:
		return fmt.Errorf("one without --repair is under way since %s, by %s: wait for its end (%s), then repair", stamp(run.StartedAt), run.Input.By, follow)
	default:
		a.note("joined the one that is under way since %s, by %s%s", stamp(run.StartedAt), run.Input.By, withRepair(run.Input))
	}
	if !flags.follow {
		return a.print(startedView{run.WorkflowID, run.RunID}, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "it runs as workflow %s; follow it: %s\n", run.WorkflowID, follow)
			return err
		})
	}
	bar := a.newBar("orders", -1, false)
	report, err := reconcile.Follow(ctx, temporal, run, func(p reconcile.Progress) {
		if p.Walk.Expected > 0 {
			bar.resize(p.Walk.Expected)
		}
		bar.set(p.Walk.Found.ERPOrders+p.Walk.Found.TargetOrders, reconcileProgress(p))
	})
	bar.finish()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; it goes on: %s follows it again, and this ends it: temporal workflow cancel%s -w %s",
			follow, namespaceFlag(cfg), run.WorkflowID)
	}
	if err != nil {
		return err
	}
	return a.reportReconcile(report, flags.limit)
}

// startedView names the run that is under way.
type startedView struct {
	WorkflowID string `json:"workflow_id"`
	RunID      string `json:"run_id"`
}

func withRepair(in workflows.ReconcileInput) string {
	if in.Repair {
		return ", which repairs"
	}
	return ""
}

// namespaceFlag is what the temporal command needs to know, if it is not the default.
func namespaceFlag(cfg config.Config) string {
	if ns := cfg.Temporal.Client.Namespace; ns != "" && ns != "default" {
		return " -n " + ns
	}
	return ""
}

func reconcileProgress(p reconcile.Progress) string {
	f := p.Walk.Found
	done := fmt.Sprintf("%d of the ERP's, %d of the shop's, %d drifted", f.ERPOrders, f.TargetOrders, f.Drifted())
	switch {
	case p.Attempt == 0 && p.LastFailure == "":
		return "waiting for a worker that has ERP_SOURCE"
	case p.LastFailure != "":
		return fmt.Sprintf("%s; attempt %d, as %s", done, p.Attempt, shortened(p.LastFailure, 100))
	default:
		return done
	}
}

// reportReconcile prints what was found, and fails where something is left to do.
func (a *app) reportReconcile(r workflows.ReconcileReport, limit int) error {
	if err := a.print(r, func(out io.Writer) error { return a.printReconcile(out, r, limit) }); err != nil {
		return err
	}
	if r.Repaired > 0 {
		a.note("%d repairs are published; follow them: %s, then compare again: %s", r.Repaired, a.hint("wait"), a.hint("reconcile"))
	}
	return errors.Join(a.leftDrift(r), a.leftUnread(r))
}

// leftDrift is what to do about drift that was not repaired.
func (a *app) leftDrift(r workflows.ReconcileReport) error {
	left := r.Unrepaired()
	repairable := r.Counts[order.DriftMissing] + r.Counts[order.DriftStale] + r.Counts[order.DriftDifferent]
	switch {
	case left == 0:
		return nil
	case !r.Repair && repairable > 0:
		return fmt.Errorf("%d orders drifted; to repair %d of them: %s", left, repairable, a.hint("reconcile --repair"))
	default:
		return fmt.Errorf("%d orders drifted that no repair mends", left)
	}
}

// leftUnread is what to do about rows that could not be compared.
func (a *app) leftUnread(r workflows.ReconcileReport) error {
	if r.Rejected == 0 {
		return nil
	}
	return fmt.Errorf("%d rows of the ERP are no orders and were not compared, the first: %s; mend them there, or what lists its orders, then compare again: %s",
		r.Rejected, shortened(r.FirstRejected, 100), a.hint("reconcile"))
}

func (a *app) printReconcile(out io.Writer, r workflows.ReconcileReport, limit int) error {
	fmt.Fprintf(out, "compared %d orders of the ERP with %d of the shop's, from %s to %s (%v)\n\n", r.ERPOrders, r.TargetOrders,
		stamp(r.StartedAt), stamp(r.FinishedAt), r.FinishedAt.Sub(r.StartedAt).Round(time.Millisecond))
	t := newTable(out)
	t.row("ORDERS", "CLASS", "")
	t.row(r.Agreeing, "agreeing", "")
	for _, class := range order.Drifts {
		if n := r.Counts[class]; n > 0 {
			t.row(n, class, classMeans[class])
		}
	}
	if r.Repaired > 0 {
		t.row(r.Repaired, "repaired", "of these: published anew")
	}
	if r.Rejected > 0 {
		t.row(r.Rejected, "unreadable", "rows of the ERP that are no orders, the first: "+shortened(r.FirstRejected, 100))
	}
	if err := t.flush(); err != nil || len(r.Findings) == 0 || limit == 0 {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out)
	t.row("ORDER", "CLASS", "CHANNEL", "ERP", "SHOP", "ERP TIME", "WHAT TO DO")
	shown := r.Findings[:min(limit, len(r.Findings))]
	for _, f := range shown {
		t.row(f.SyncID, f.Class, f.Channel, versionOf(f.ERPVersion), versionOf(f.TargetVersion), stampIfAny(f.ChangedAt), a.nextStep(f))
	}
	if err := t.flush(); err != nil {
		return err
	}
	all := r.Drifted() + r.Counts[order.OnItsWay] + r.Counts[order.DriftAmended]
	if more := all - int64(len(shown)); more > 0 {
		where := fmt.Sprintf("raise --limit (%d are kept in detail)", len(r.Findings))
		if len(shown) == len(r.Findings) {
			where = "more are not kept in detail"
		}
		fmt.Fprintf(out, "… and %d more: %s\n", more, where)
	}
	return nil
}

var classMeans = map[order.Drift]string{
	order.DriftMissing:   "the shop lacks them",
	order.DriftStale:     "the shop has an older version",
	order.DriftDifferent: "the shop has other data",
	order.DriftAmended:   "operators amended or skipped them",
	order.DriftAhead:     "the shop has a newer version",
	order.DriftExtra:     "the ERP lacks them",
	order.OnItsWay:       "no drift yet",
}

// nextStep is what somebody can do about a finding.
func (a *app) nextStep(f order.Finding) string {
	look := a.propose(order.ShowCommand(f.SyncID))
	switch {
	case f.Repair != nil:
		return "repaired; see " + look
	case strings.HasPrefix(f.Why, "not repaired"):
		return f.Why
	case f.Class.Repairable():
		return a.hint("reconcile --repair")
	case f.Class == order.DriftAmended:
		return "mend it in the ERP, which then sends a new version"
	case f.Class == order.DriftAhead:
		return "was the ERP restored from a backup? see " + look
	case f.Class == order.DriftExtra:
		return "was it deleted in the ERP? see " + look
	default:
		return f.Why + "; see " + look
	}
}

// versionOf is a version for people.
func versionOf(v int64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("v%d", v)
}

func stampIfAny(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return stamp(t)
}
