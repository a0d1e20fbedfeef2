package operator

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
)

// ServerNow is what Temporal's clock shows at least: when a worker last polled the task queue, which each does
// within a minute; zero where none polls. Temporal has no call that says what time it is, and an order's times
// are by its clock: the clock of whoever types a command may be wrong by hours.
func ServerNow(ctx context.Context, c client.Client, namespace, taskQueue string) (now time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, kind := range []enumspb.TaskQueueType{enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY} {
		d, err := c.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
			Namespace: namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: taskQueue}, TaskQueueType: kind,
		})
		if err != nil {
			return time.Time{}, fmt.Errorf("ask Temporal for task queue %s: %w", taskQueue, err)
		}
		for _, poller := range d.GetPollers() {
			if at := poller.GetLastAccessTime().AsTime(); at.After(now) {
				now = at
			}
		}
	}
	return now, nil
}
