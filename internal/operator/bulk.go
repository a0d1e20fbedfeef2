package operator

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	batchpb "go.temporal.io/api/batch/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/workflows"
)

// Bulk is one signal to every order of a selection. The Temporal server carries it out as a batch
// operation: once started, it goes on without its caller.
type Bulk struct {
	Selection Selection
	Signal    string
	// Input is the signal's; it should carry Selection.StuckBefore, as the list of orders is made
	// by a visibility store that may be behind, and an order may be stuck on its next event by then.
	Input  any
	By     string
	Reason string
	// Rate bounds the signals a second; 0 leaves it to the server.
	Rate float32
}

// Start begins the batch operation and gives its job id.
func (b Bulk) Start(ctx context.Context, c client.Client, namespace string) (job string, err error) {
	input, err := workflows.DataConverter().ToPayloads(b.Input)
	if err != nil {
		return "", fmt.Errorf("encode the input of %s: %w", b.Signal, err)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	job = "ordersync-" + b.Signal + "-" + uuid.NewString()
	why := b.Signal + " by " + b.By
	if b.Reason != "" {
		why += ": " + b.Reason
	}
	_, err = c.WorkflowService().StartBatchOperation(ctx, &workflowservice.StartBatchOperationRequest{
		Namespace: namespace, JobId: job, VisibilityQuery: b.Selection.Query(), Reason: why, MaxOperationsPerSecond: b.Rate,
		Operation: &workflowservice.StartBatchOperationRequest_SignalOperation{SignalOperation: &batchpb.BatchOperationSignal{
			Signal: b.Signal, Input: input, Identity: b.By,
		}},
	})
	if exhausted := new(serviceerror.ResourceExhausted); errors.As(err, &exhausted) {
		return "", fmt.Errorf("Temporal runs as many batch operations as it may (see `temporal batch list`): wait for them, then try again: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("start the batch operation: %w", err)
	}
	return job, nil
}

// Progress is how far a batch operation is, in orders.
type Progress struct {
	Job    string `json:"job_id"`
	Total  int64  `json:"total"`
	Sent   int64  `json:"sent"`
	Failed int64  `json:"failed"`
	Ended  bool   `json:"ended"`
}

// Follow reports the progress of a batch operation until it has ended.
func Follow(ctx context.Context, c client.Client, namespace, job string, report func(Progress)) (Progress, error) {
	const every = 250 * time.Millisecond
	for {
		p, err := progress(ctx, c, namespace, job)
		if err != nil {
			return p, err
		}
		report(p)
		if p.Ended {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-time.After(every):
		}
	}
}

func progress(ctx context.Context, c client.Client, namespace, job string) (Progress, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := c.WorkflowService().DescribeBatchOperation(ctx, &workflowservice.DescribeBatchOperationRequest{Namespace: namespace, JobId: job})
	if notYet := new(serviceerror.NotFound); errors.As(err, &notYet) {
		return Progress{Job: job}, nil
	}
	if err != nil {
		return Progress{Job: job}, fmt.Errorf("ask for batch operation %s: %w", job, err)
	}
	return Progress{
		Job: job, Total: d.GetTotalOperationCount(), Sent: d.GetCompleteOperationCount(), Failed: d.GetFailureOperationCount(),
		Ended: d.GetState() != enumspb.BATCH_OPERATION_STATE_RUNNING && d.GetState() != enumspb.BATCH_OPERATION_STATE_UNSPECIFIED,
	}, nil
}
