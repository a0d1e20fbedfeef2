package erp

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// query is a SELECT of the team's own.
type query struct {
	name string // of its file, without .sql
	text string
}

// readQueries reads the queries of a directory, in the order of their names. Hidden files are left
// out: a Kubernetes volume has some.
func readQueries(dir string) ([]query, error) {
	if dir == "" {
		return nil, errors.New("ERP_QUERIES is not set: a directory of .sql files, a query for changes in each")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("ERP_QUERIES: %w", err)
	}
	var queries []query
	var problems []error
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") || filepath.Ext(entry.Name()) != ".sql" {
			continue
		}
		q, err := readQuery(filepath.Join(dir, entry.Name()))
		if err != nil {
			problems = append(problems, fmt.Errorf("ERP_QUERIES: %w", err))
			continue
		}
		queries = append(queries, q)
	}
	if len(queries) == 0 && len(problems) == 0 {
		problems = append(problems, fmt.Errorf("ERP_QUERIES: %s has no .sql file", dir))
	}
	slices.SortFunc(queries, func(a, b query) int { return strings.Compare(a.name, b.name) })
	return queries, errors.Join(problems...)
}

func readQuery(path string) (query, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return query{}, err
	}
	q := query{name: strings.TrimSuffix(filepath.Base(path), ".sql"), text: bare(string(content))}
	if q.text == "" {
		return query{}, fmt.Errorf("%s has no query", path)
	}
	return q, nil
}

// bare is a query that can stand in parentheses: without what ends a statement, and what follows that.
func bare(text string) string {
	text = strings.TrimPrefix(text, "\ufeff")
	for {
		text = strings.TrimSpace(text)
		last := strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
		switch {
		case strings.HasSuffix(text, ";"):
			text = strings.TrimSuffix(text, ";")
		case strings.HasPrefix(last, "--"):
			text = text[:strings.LastIndexByte(text, '\n')+1]
		default:
			return text
		}
	}
}
