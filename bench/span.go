package main

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
)

// The clock of a measurement is Temporal's: each system has a task queue of its own, and the server
// notes when each workflow on it started and closed.

// page is the most executions the server lists at a time.
const page = 1000

func (b *bench) list(ctx context.Context, t trial, size int, token []byte) ([]*workflowpb.WorkflowExecutionInfo, []byte, error) {
	response, err := b.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: int32(size), NextPageToken: token, Query: fmt.Sprintf("TaskQueue = %q", t.name),
	})
	if err != nil {
		return nil, nil, fmt.Errorf("list workflows: %w", err)
	}
	return response.GetExecutions(), response.GetNextPageToken(), nil
}

// allClosed tells whether no workflow is open. The server lists the open ones first.
func (b *bench) allClosed(ctx context.Context, t trial) (bool, error) {
	first, _, err := b.list(ctx, t, 1, nil)
	return err == nil && len(first) == 1 && first[0].GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, err
}

// span is the time from the first start to the last close. Every order must have completed.
func (b *bench) span(ctx context.Context, t trial) (time.Duration, error) {
	var first, last time.Time
	completed := map[string]bool{}
	for token := []byte(nil); ; {
		executions, next, err := b.list(ctx, t, page, token)
		if err != nil {
			return 0, err
		}
		for _, e := range executions {
			started, closed := e.GetStartTime().AsTime(), e.GetCloseTime().AsTime()
			if first.IsZero() || started.Before(first) {
				first = started
			}
			if closed.After(last) {
				last = closed
			}
			if e.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
				completed[e.GetExecution().GetWorkflowId()] = true
			}
		}
		if token = next; len(token) == 0 {
			break
		}
	}
	if len(completed) != t.orders {
		return 0, fmt.Errorf("%d of %d orders have a workflow that completed", len(completed), t.orders)
	}
	return last.Sub(first), nil
}
