package config

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/go-sql-driver/mysql"
)

// The names of ERP_SOURCE.
const (
	erpHTTP     = "http"
	erpMySQL    = "mysql"
	erpPostgres = "postgres"
)

// check looks at what concerns several variables. Whether the files are there is for those processes
// to say that poll: not every pod has them.
func (e *ERP) check(report func(string, error)) {
	sql, http := e.Source == erpMySQL || e.Source == erpPostgres, e.Source == erpHTTP
	if e.Source == "" {
		for _, v := range []struct{ name, value string }{
			{"ERP_URL", string(e.URL)}, {"ERP_TOKEN", string(e.Token)}, {"ERP_USERNAME", e.User},
			{"ERP_PASSWORD", string(e.UserPassword)}, {"ERP_QUERIES", e.Queries}, {"ERP_ORDERS_QUERY", e.Orders},
		} {
			if v.value != "" {
				report("ERP_SOURCE", fmt.Errorf("is not set, but %s is: http, mysql or postgres", v.name))
				return
			}
		}
		return
	}
	if !sql && !http {
		report("ERP_SOURCE", fmt.Errorf("%q is none of %s, %s, %s", e.Source, erpHTTP, erpMySQL, erpPostgres))
		return
	}
	if err := e.checkURL(); err != nil {
		report("ERP_URL", err)
	}
	if sql {
		if e.Queries == "" {
			report("ERP_QUERIES", fmt.Errorf("is not set, and %s needs it: a directory of .sql files, a query for changes in each", e.Source))
		}
		for name, given := range map[string]bool{"ERP_TOKEN": e.Token != "", "ERP_USERNAME": e.User != "", "ERP_PASSWORD": e.UserPassword != ""} {
			if given {
				report(name, fmt.Errorf("is for http alone; %s takes user and password from ERP_URL", e.Source))
			}
		}
		return
	}
	for name, value := range map[string]string{"ERP_QUERIES": e.Queries, "ERP_ORDERS_QUERY": e.Orders} {
		if value != "" {
			report(name, errors.New("is for mysql and postgres alone"))
		}
	}
	if e.Token != "" && e.User != "" {
		report("ERP_TOKEN", errors.New("and ERP_USERNAME are both set: one of them authorizes"))
	}
	if (e.User == "") != (e.UserPassword == "") {
		report("ERP_USERNAME", errors.New("and ERP_PASSWORD go together, only one is set"))
	}
}

// checkURL quotes nothing of the URL: it may hold a password.
func (e *ERP) checkURL() error {
	if e.URL == "" {
		return fmt.Errorf("is not set, and ERP_SOURCE %s needs it", e.Source)
	}
	if e.Source == erpMySQL {
		if dsn, err := mysql.ParseDSN(string(e.URL)); err != nil || dsn.DBName == "" {
			return errors.New("is not user:password@tcp(host:port)/schema")
		}
		return nil
	}
	u, err := url.Parse(string(e.URL))
	switch {
	case e.Source == erpHTTP && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == ""):
		return errors.New("is not http://host/path or https://host/path")
	case e.Source == erpPostgres && (err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Host == "" || len(u.Path) < 2):
		return errors.New("is not postgres://user:password@host:5432/database")
	}
	return nil
}
