package config_test

import (
	"fmt"
	"strings"
	"testing"

	"ordersync/internal/config"
)

func TestERP(t *testing.T) {
	c := load(t, with("ERP_SOURCE=postgres", "ERP_URL=postgres://sync:hunter2@erp:5432/shop", "ERP_QUERIES=/queries", "ERP_PAGE_SIZE=500"))
	if c.ERP.Source != "postgres" || c.ERP.PageSize != 500 || c.ERP.Queries != "/queries" {
		t.Errorf("%+v", c.ERP)
	}
	if printed := fmt.Sprintf("%v %+v", c, c.ERP); strings.Contains(printed, "hunter2") {
		t.Errorf("a secret is printed: %s", printed)
	}
	load(t, with("ERP_SOURCE=http", "ERP_URL=https://erp.example/api", "ERP_USERNAME=sync", "ERP_PASSWORD=hunter2"))
	load(t, with("ERP_SOURCE=mysql", "ERP_URL=sync:hunter2@tcp(erp:3306)/shop", "ERP_QUERIES=/queries", "ERP_ORDERS_QUERY=/orders.sql"))
}

func TestERPRefused(t *testing.T) {
	const (
		http     = "ERP_SOURCE=http ERP_URL=https://erp/ "
		mysql    = "ERP_SOURCE=mysql ERP_URL=sync:hunter2@tcp(erp:3306)/shop ERP_QUERIES=/queries "
		postgres = "ERP_SOURCE=postgres ERP_QUERIES=/queries "
	)
	for _, c := range []struct{ variables, want string }{
		{"ERP_SOURCE=oracle", `ERP_SOURCE: "oracle" is none of http, mysql, postgres`},
		{"ERP_URL=https://erp/", "ERP_SOURCE: is not set, but ERP_URL is"},
		{"ERP_QUERIES=/queries", "ERP_SOURCE: is not set, but ERP_QUERIES is"},
		{"ERP_SOURCE=http", "ERP_URL: is not set"},
		{"ERP_SOURCE=http ERP_URL=ftp://sync:hunter2@erp/", "ERP_URL: is not http://"},
		{"ERP_SOURCE=http ERP_URL=https://sync:hunter2@erp:x/", "ERP_URL: is not http://"},
		{"ERP_SOURCE=mysql ERP_URL=sync:hunter2@tcp(erp:3306)/ ERP_QUERIES=/queries", "ERP_URL: is not user:password@tcp"},
		{"ERP_SOURCE=mysql ERP_URL=sync:hunter2@tcp(erp:3306)/shop", "ERP_QUERIES: is not set, and mysql needs it"},
		{postgres + "ERP_URL=sync:hunter2@tcp(erp:3306)/shop", "ERP_URL: is not postgres://"},
		{postgres + "ERP_URL=postgres://sync:hunter2@erp", "ERP_URL: is not postgres://"},
		{mysql + "ERP_TOKEN=hunter2", "ERP_TOKEN: is for http alone"},
		{http + "ERP_QUERIES=/queries", "ERP_QUERIES: is for mysql and postgres alone"},
		{http + "ERP_USERNAME=sync", "ERP_USERNAME: and ERP_PASSWORD go together"},
		{http + "ERP_TOKEN=hunter2 ERP_USERNAME=sync ERP_PASSWORD=hunter2", "ERP_TOKEN: and ERP_USERNAME are both set"},
		{http + "ERP_TIMEOUT=1h", "ERP_TIMEOUT: 1h0m0s is not within"},
	} {
		t.Run(c.variables, func(t *testing.T) {
			_, err := config.Load(with(strings.Fields(c.variables)...))
			if err == nil {
				t.Fatal("it is accepted")
			}
			got := problems(t, with(strings.Fields(c.variables)...))
			if len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
				t.Errorf("got %q, want one line %q", got, c.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
}
