package main

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
)

// The clock of a measurement is Temporal's: each system has a task queue of its own, and the server
// notes when each workflow on it started and closed.

// page is the most executions the server lists at a time.
const page = 1000

// allClosed tells whether the workflows of so many orders have run, and none is open but those that
// are stuck. The server lists what has happened a moment later, so that none is open says nothing alone.
func (b *bench) allClosed(ctx context.Context, queue string, orders int) (bool, error) {
	count := func(status enumspb.WorkflowExecutionStatus) (int, error) {
		response, err := b.temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{
			Query: fmt.Sprintf("TaskQueue = %q AND ExecutionStatus = %q AND SyncStatus IS NULL", queue, status),
		})
		if err != nil {
			return 0, fmt.Errorf("count workflows: %w", err)
		}
		return int(response.GetCount()), nil
	}
	completed, err := count(enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	if err != nil || completed < orders {
		return false, err
	}
	open, err := count(enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING)
	return open == 0, err
}

// span is the time from the first start to the last close. So many orders must have completed.
func (b *bench) span(ctx context.Context, queue string, orders int) (time.Duration, error) {
	var first, last time.Time
	completed := map[string]bool{}
	for token := []byte(nil); ; {
		response, err := b.temporal.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			PageSize: page, NextPageToken: token, Query: fmt.Sprintf("TaskQueue = %q", queue),
		})
		if err != nil {
			return 0, fmt.Errorf("list workflows: %w", err)
		}
		for _, e := range response.GetExecutions() {
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
		if token = response.GetNextPageToken(); len(token) == 0 {
			break
		}
	}
	if len(completed) != orders {
		return 0, fmt.Errorf("%d of %d orders have a workflow that completed", len(completed), orders)
	}
	return last.Sub(first), nil
}
