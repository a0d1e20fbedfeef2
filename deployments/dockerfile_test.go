package deployments_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// image is what the Dockerfile makes.
type image struct {
	packages []string // built, relative to the top of the repository
	programs []string // their names in /usr/local/bin
	user     int64
}

var (
	goBuild = regexp.MustCompile(`(?m)^RUN go build .*-o /out/((?: \./\S+)+)$`)
	userID  = regexp.MustCompile(`(?m)^USER (\d+):\d+$`)
	xFlag   = regexp.MustCompile(`-X ordersync/(\S+)\.(\w+)=`)
)

func dockerfile(t *testing.T) image {
	t.Helper()
	text := string(read(t, "Dockerfile"))
	build, user := goBuild.FindStringSubmatch(text), userID.FindStringSubmatch(text)
	if build == nil || user == nil {
		t.Fatal("the Dockerfile builds nothing, or names no user by number")
	}
	var i image
	for _, path := range strings.Fields(build[1]) {
		i.packages = append(i.packages, path)
		i.programs = append(i.programs, filepath.Base(path))
	}
	var err error
	if i.user, err = strconv.ParseInt(user[1], 10, 64); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestDockerfile(t *testing.T) {
	i := dockerfile(t)
	if i.user == 0 {
		t.Error("the image's user is root")
	}
	if want := []string{"ordersync", "starter", "worker"}; !slices.Equal(slices.Sorted(slices.Values(i.programs)), want) {
		t.Errorf("it has %v, want %v", i.programs, want)
	}
	for _, path := range i.packages {
		main, err := os.ReadFile(filepath.Join("..", path, "main.go"))
		if err != nil || !strings.Contains(string(main), "\npackage main\n") {
			t.Errorf("%s is no program: %v", path, err)
		}
	}
	text := string(read(t, "Dockerfile"))
	flag := xFlag.FindStringSubmatch(text)
	if flag == nil {
		t.Fatal("the image does not know its version")
	}
	files, err := filepath.Glob(filepath.Join("..", flag[1], "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(file string) bool { return strings.Contains(string(read(t, file)), "\nvar "+flag[2]+" string\n") }) {
		t.Errorf("there is no variable %s in %s for the linker to set", flag[2], flag[1])
	}
}

// A folder that the build reads and the ignore file keeps out breaks the image, and nothing else.
func TestDockerignore(t *testing.T) {
	text := "\n" + string(read(t, "Dockerfile.dockerignore"))
	if !strings.Contains(text, "\n*\n") {
		t.Fatal("it lets everything into the build")
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	notBuilt := []string{"bench", "deployments", "docs", "e2e", "scripts", "testdata", "tools"}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && !strings.HasPrefix(name, ".") && !slices.Contains(notBuilt, name) && hasGo(t, filepath.Join("..", name)) &&
			!strings.Contains(text, "\n!"+name+"\n") {
			t.Errorf("%s is kept out of the build; if nothing that is built needs it, say so in this test", name)
		}
	}
}

func hasGo(t *testing.T, dir string) bool {
	t.Helper()
	found := false
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		found = found || strings.HasSuffix(path, ".go")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
