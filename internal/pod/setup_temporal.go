package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/config"
	"ordersync/workflows"
)

// searchAttributes are those of OrderSync.
var searchAttributes = []temporal.SearchAttributeKey{workflows.OrderID, workflows.Channel, workflows.SyncStatus, workflows.SyncError, workflows.StuckSince}

func setupSearchAttributes(ctx context.Context, cfg config.Config, log *slog.Logger, o SetupOptions) ([]SetupItem, error) {
	c, err := NewTemporal(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := awaitServer(ctx, log, "Temporal", o.Wait, func(ctx context.Context) error { return checkTemporal(ctx, c, cfg) }); err != nil {
		return nil, err
	}
	added, err := addSearchAttributes(ctx, c, cfg.Temporal.Client.Namespace)
	if err != nil {
		return nil, err
	}
	// The server's frontends learn of a new search attribute a while after it is listed.
	if err := awaitServer(ctx, log, "Temporal's search attributes", o.Wait, func(ctx context.Context) error {
		return useSearchAttributes(ctx, c, cfg.Temporal.Client.Namespace)
	}); err != nil {
		return nil, err
	}
	var items []SetupItem
	for _, key := range searchAttributes {
		items = append(items, SetupItem{Kind: "search_attribute", Name: key.GetName(), Created: added[key.GetName()]})
	}
	return items, nil
}

// addSearchAttributes adds those that the namespace lacks, and gives their names.
func addSearchAttributes(ctx context.Context, c client.Client, namespace string) (map[string]bool, error) {
	known, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		// Temporal Cloud, or an account that may not look: fine if all are usable.
		if useSearchAttributes(ctx, c, namespace) == nil {
			return nil, nil
		}
		return nil, fmt.Errorf("the search attributes of namespace %s cannot be read: add %s by hand (on Temporal Cloud in the Web UI or with tcld): %w", namespace, names(), err)
	}
	missing, added := map[string]enumspb.IndexedValueType{}, map[string]bool{}
	for _, key := range searchAttributes {
		switch is, ok := known.GetCustomAttributes()[key.GetName()]; {
		case !ok:
			missing[key.GetName()] = key.GetValueType()
			added[key.GetName()] = true
		case is != key.GetValueType():
			return nil, fmt.Errorf("search attribute %s of namespace %s is of type %v, ordersync needs %v: use a namespace of its own", key.GetName(), namespace, is, key.GetValueType())
		}
	}
	if len(missing) == 0 {
		return added, nil
	}
	_, err = c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: namespace, SearchAttributes: missing})
	var exists *serviceerror.AlreadyExists // by another setup at the same time
	if err != nil && !errors.As(err, &exists) {
		return nil, fmt.Errorf("add search attributes to namespace %s (or add %s by hand): %w", namespace, names(), err)
	}
	return added, nil
}

// useSearchAttributes fails as long as one of them cannot be used.
func useSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	var terms []string
	for _, key := range searchAttributes {
		terms = append(terms, key.GetName()+` IS NOT NULL`)
	}
	_, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: strings.Join(terms, " AND ")})
	return err
}

func names() string {
	var all []string
	for _, key := range searchAttributes {
		all = append(all, fmt.Sprintf("%s (%v)", key.GetName(), key.GetValueType()))
	}
	return strings.Join(all, ", ")
}
