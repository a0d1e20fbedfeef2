// Package deployments holds no code: its tests render the manifests and read the Dockerfile as kubectl
// and a builder would, and hold them against what the programs say of themselves.
package deployments_test

import (
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	strict "sigs.k8s.io/yaml"
)

// The folders: what every installation shares, and one to copy.
const (
	base    = "kubernetes"
	example = "example"
)

// manifests are what a folder renders to, decoded into their API types. Names are without the namespace:
// there is one at most.
type manifests struct {
	configs     map[string]corev1.ConfigMap
	deployments map[string]appsv1.Deployment
	setup       batchv1.CronJob
	budgets     map[string]policyv1.PodDisruptionBudget
}

// config is the generated ConfigMap of a name, which goes on with a hash.
func (m manifests) config(t *testing.T, name string) corev1.ConfigMap {
	t.Helper()
	generated := regexp.MustCompile("^" + name + "-[a-z0-9]{10}$")
	for hashed, c := range m.configs {
		if generated.MatchString(hashed) {
			return c
		}
	}
	t.Fatalf("there is no ConfigMap %s with a hash in its name", name)
	return corev1.ConfigMap{}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func decode(t *testing.T, name string, text []byte, into any) {
	t.Helper()
	if err := strict.UnmarshalStrict(text, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// files are the folders as they are in the repository, for a test to change.
func files(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, dir := range []string{base, example} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			all[path] = string(read(t, path))
		}
	}
	return all
}

// render is what `kubectl apply -k` sends.
func render(t *testing.T, all map[string]string, dir string) manifests {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	for path, text := range all {
		if err := disk.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	rendered, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, dir)
	if err != nil {
		t.Fatal(err)
	}
	m := manifests{
		configs: map[string]corev1.ConfigMap{}, deployments: map[string]appsv1.Deployment{}, budgets: map[string]policyv1.PodDisruptionBudget{},
	}
	for _, r := range rendered.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		m.add(t, r.GetName(), text)
	}
	return m
}

func load(t *testing.T) manifests {
	t.Helper()
	return render(t, files(t), example)
}

func (m *manifests) add(t *testing.T, name string, text []byte) {
	t.Helper()
	var is metav1.TypeMeta
	if err := strict.Unmarshal(text, &is); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	switch is.APIVersion + " " + is.Kind {
	case "v1 ConfigMap":
		var c corev1.ConfigMap
		decode(t, name, text, &c)
		m.configs[c.Name] = c
	case "apps/v1 Deployment":
		var d appsv1.Deployment
		decode(t, name, text, &d)
		m.deployments[d.Name] = d
	case "batch/v1 CronJob":
		decode(t, name, text, &m.setup)
	case "policy/v1 PodDisruptionBudget":
		var b policyv1.PodDisruptionBudget
		decode(t, name, text, &b)
		m.budgets[b.Name] = b
	default:
		// A Job, for one, cannot be changed: an update that holds one fails halfway.
		t.Fatalf("%s is a %s %s, of which this test does not know whether it can be applied again", name, is.APIVersion, is.Kind)
	}
}

func TestEveryFileIsUsed(t *testing.T) {
	var k types.Kustomization
	text := read(t, filepath.Join(base, "kustomization.yaml"))
	decode(t, "kustomization.yaml", text, &k)
	used := append(slices.Clone(k.Resources), "kustomization.yaml")
	for _, g := range k.ConfigMapGenerator {
		used = append(used, g.EnvSources...)
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(used, e.Name()) {
			t.Errorf("kustomization.yaml does not use %s", e.Name())
		}
	}
}

// changed is all with a text in a file replaced.
func changed(t *testing.T, all map[string]string, path, from, to string) map[string]string {
	t.Helper()
	if !strings.Contains(all[path], from) {
		t.Fatalf("%s has no %q", path, from)
	}
	other := maps.Clone(all)
	other[path] = strings.Replace(all[path], from, to, 1)
	return other
}

// An update is applied over what is there: the API server refuses a change of a selector, and nothing else
// of these kinds. What a pod reads when it starts is part of its template, so a change of it replaces the
// pods.
func TestAnUpdateCanBeAppliedAndReachesThePods(t *testing.T) {
	all := files(t)
	before := render(t, all, example)
	if again := render(t, all, example); !reflect.DeepEqual(before, again) {
		t.Error("the same renders differently")
	}
	for name, after := range map[string]manifests{
		"a value of the base":     render(t, changed(t, all, base+"/ordersync.env", "HOLD_WINDOW=1m", "HOLD_WINDOW=2m"), example),
		"a value of the overlay":  render(t, changed(t, all, example+"/kustomization.yaml", "KAFKA_BROKERS=", "KAFKA_BROKERS=other:9092,"), example),
		"a variable more":         render(t, changed(t, all, example+"/kustomization.yaml", "    literals:\n", "    literals:\n      - LOG_LEVEL=DEBUG\n"), example),
		"another image":           render(t, changed(t, all, example+"/kustomization.yaml", `"1.2.3"`, `"1.2.4"`), example),
		"an image by its content": render(t, changed(t, all, example+"/kustomization.yaml", `newTag: "1.2.3"`, "digest: sha256:"+strings.Repeat("0", 64)), example),
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range before.deployments {
				other, ok := after.deployments[d.Name]
				if !ok || !reflect.DeepEqual(d.Spec.Selector, other.Spec.Selector) {
					t.Errorf("the selector of %s has changed, which the API server refuses", d.Name)
				}
				if reflect.DeepEqual(d.Spec.Template, other.Spec.Template) {
					t.Errorf("the pods of %s stay as they are", d.Name)
				}
			}
			if reflect.DeepEqual(before.setup.Spec.JobTemplate, after.setup.Spec.JobTemplate) {
				t.Error("setup stays as it is")
			}
		})
	}
}

// The ERP's ConfigMaps, which a team generates, reach the workers' pods and no others.
func TestTheERPsConfiguration(t *testing.T) {
	all := files(t)
	without := render(t, all, example)
	_, part, ok := strings.Cut(all[example+"/kustomization.yaml"], "\n  # - name: ordersync-erp\n")
	if !ok {
		t.Fatal("the example does not show the ERP's ConfigMaps")
	}
	shown := "  - name: ordersync-erp\n" + regexp.MustCompile("(?m)^  # ").ReplaceAllString(part, "  ")
	all = changed(t, all, example+"/kustomization.yaml", "  # - name: ordersync-erp\n"+part, shown)
	for _, file := range []string{"queries/creations.sql", "queries/updates.sql", "queries/invoices.sql", "orders.sql"} {
		all[example+"/"+file] = "SELECT 1"
	}
	with := render(t, all, example)
	pod := with.deployments["ordersync-worker"].Spec.Template.Spec
	if got := pod.Containers[0].EnvFrom[1].ConfigMapRef.Name; got != with.config(t, "ordersync-erp").Name {
		t.Errorf("the worker's environment comes from %s", got)
	}
	for i, name := range []string{"ordersync-erp-queries", "ordersync-erp-orders"} {
		if got := pod.Volumes[i].ConfigMap.Name; got != with.config(t, name).Name {
			t.Errorf("the worker's files come from %s", got)
		}
	}
	paths := with.config(t, "ordersync-erp").Data
	if mount := pod.Containers[0].VolumeMounts[0].MountPath; paths["ERP_QUERIES"] != mount {
		t.Errorf("ERP_QUERIES is %s, the queries are at %s", paths["ERP_QUERIES"], mount)
	}
	file := path.Join(pod.Containers[0].VolumeMounts[1].MountPath, "orders.sql")
	if _, ok := with.config(t, "ordersync-erp-orders").Data["orders.sql"]; !ok || paths["ERP_ORDERS_QUERY"] != file {
		t.Errorf("ERP_ORDERS_QUERY is %s, the query is at %s", paths["ERP_ORDERS_QUERY"], file)
	}
	other := render(t, changed(t, all, example+"/queries/updates.sql", "SELECT 1", "SELECT 2"), example)
	for name, want := range map[string]bool{"ordersync-worker": true, "ordersync-starter": false} {
		if got := !reflect.DeepEqual(with.deployments[name].Spec.Template, other.deployments[name].Spec.Template); got != want {
			t.Errorf("another query replaces the pods of %s: %v", name, got)
		}
	}
	if !reflect.DeepEqual(without.deployments["ordersync-starter"], with.deployments["ordersync-starter"]) {
		t.Error("the ERP concerns the starter")
	}
}

// README's commands go by names and labels of the manifests; no cluster runs them here.
func TestREADMEsCommands(t *testing.T) {
	m := load(t)
	readme := string(read(t, filepath.Join("..", "README.md")))
	var k types.Kustomization
	decode(t, "kustomization.yaml", read(t, filepath.Join(example, "kustomization.yaml")), &k)
	for _, want := range []string{
		"docker build -f deployments/Dockerfile --build-arg VERSION=" + k.Images[0].NewTag + " -t " + k.Images[0].NewName + ":" + k.Images[0].NewTag + " .",
		"docker push " + k.Images[0].NewName + ":" + k.Images[0].NewTag,
		"kubectl create namespace " + k.Namespace,
		"kubectl create secret generic ordersync --namespace " + k.Namespace + " --from-literal=MYSQL_DSN=",
		"--from=cronjob/" + m.setup.Name,
	} {
		if !strings.Contains(readme, want) {
			t.Errorf("README.md has no %q", want)
		}
	}
	named := regexp.MustCompile(`deployment[/ ](ordersync-\w+)`).FindAllStringSubmatch(readme, -1)
	if len(named) == 0 {
		t.Error("README.md waits for no deployment")
	}
	for _, name := range named {
		if _, ok := m.deployments[name[1]]; !ok {
			t.Errorf("README.md names %s, which is not there", name[1])
		}
	}
	first := regexp.MustCompile(`kubectl apply -k deployments/example --selector '([^']+)'`).FindStringSubmatch(readme)
	if first == nil {
		t.Fatal("README.md applies everything at once")
	}
	selector, err := labels.Parse(first[1])
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name   string
		labels map[string]string
		want   bool
	}{
		{"the ConfigMap", m.config(t, "ordersync").Labels, true},
		{"setup", m.setup.Labels, true},
		{"the workers", m.deployments["ordersync-worker"].Labels, true},
		{"the starters", m.deployments["ordersync-starter"].Labels, false},
	} {
		if got := selector.Matches(labels.Set(o.labels)); got != o.want {
			t.Errorf("%s: applied before the starters: %v", o.name, got)
		}
	}
}

// help is what a program says of itself.
func help(t *testing.T, program string) string {
	t.Helper()
	cmd := exec.Command("go", "run", "./"+program, "--help")
	cmd.Dir = ".."
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s --help: %v: %s", program, err, out)
	}
	return string(out)
}

func TestDeployments(t *testing.T) {
	m := load(t)
	built := dockerfile(t).programs
	for _, c := range []struct {
		program string
		mysql   bool
	}{{"worker", true}, {"starter", false}} {
		t.Run(c.program, func(t *testing.T) {
			d, ok := m.deployments["ordersync-"+c.program]
			if !ok {
				t.Fatal("there is none")
			}
			pod := d.Spec.Template
			if !matches(d.Spec.Selector, pod.Labels) {
				t.Errorf("the selector %v does not find its pods %v", d.Spec.Selector, pod.Labels)
			}
			if budget, ok := m.budgets[d.Name]; !ok || !matches(budget.Spec.Selector, pod.Labels) {
				t.Error("no disruption budget finds its pods")
			}
			text := help(t, c.program)
			ends := regexp.MustCompile(`ends within (\S+) of a SIGTERM`).FindStringSubmatch(text)
			if ends == nil {
				t.Fatalf("the program does not say how soon it ends: %s", text)
			}
			within, err := time.ParseDuration(ends[1])
			if err != nil {
				t.Fatal(err)
			}
			if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace < within+5*time.Second || within >= 30*time.Second {
				t.Errorf("it is killed after %v and takes up to %v to end", grace, within)
			}

			container := only(t, pod.Spec)
			checkContainer(t, pod.Spec, container, built, m.config(t, "ordersync"), text)
			if got := container.Command; !slices.Equal(got, []string{"/usr/local/bin/" + c.program}) {
				t.Errorf("it runs %v", got)
			}
			if hasMySQL := slices.ContainsFunc(container.Env, func(v corev1.EnvVar) bool { return v.Name == "MYSQL_DSN" }); hasMySQL != c.mysql {
				t.Errorf("MYSQL_DSN is given: %v", hasMySQL)
			}
			checkProbe(t, "liveness", container, container.LivenessProbe, "/healthz", text)
			checkProbe(t, "readiness", container, container.ReadinessProbe, "/readyz", text)
		})
	}
	if len(m.deployments) != 2 || len(m.budgets) != 2 {
		t.Errorf("%d deployments, %d budgets", len(m.deployments), len(m.budgets))
	}
	if m.config(t, "ordersync").Data["EAGER_START"] != "false" {
		t.Error("EAGER_START would want MySQL in the starter")
	}
}

func TestSetupJob(t *testing.T) {
	m := load(t)
	job := m.setup.Spec.JobTemplate.Spec
	pod := job.Template.Spec
	container := only(t, pod)
	checkContainer(t, pod, container, dockerfile(t).programs, m.config(t, "ordersync"), help(t, "worker"))
	if !slices.Equal(container.Command, []string{"/usr/local/bin/ordersync", "setup"}) {
		t.Errorf("it runs %v", container.Command)
	}
	if pod.RestartPolicy != corev1.RestartPolicyNever || job.TTLSecondsAfterFinished == nil {
		t.Error("the job would stay, or restart in place")
	}
	if !isTrue(m.setup.Spec.Suspend) {
		t.Error("it would run by itself")
	}
}

func matches(selector *metav1.LabelSelector, l map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && !s.Empty() && s.Matches(labels.Set(l))
}

func only(t *testing.T, pod corev1.PodSpec) corev1.Container {
	t.Helper()
	if len(pod.Containers) != 1 {
		t.Fatalf("%d containers", len(pod.Containers))
	}
	return pod.Containers[0]
}

// checkContainer is about what every pod has: a built program, known variables, little power.
func checkContainer(t *testing.T, pod corev1.PodSpec, c corev1.Container, built []string, config corev1.ConfigMap, help string) {
	t.Helper()
	if !slices.Contains(built, filepath.Base(c.Command[0])) || filepath.Dir(c.Command[0]) != "/usr/local/bin" {
		t.Errorf("the image has no %s", c.Command[0])
	}
	known := func(name string) bool { return strings.Contains(help, "\n  "+name+" ") }
	for name := range config.Data {
		if !known(name) {
			t.Errorf("the ConfigMap sets %s, which no program reads", name)
		}
	}
	for _, v := range c.Env {
		switch {
		case !known(v.Name):
			t.Errorf("%s is set, which no program reads", v.Name)
		case v.ValueFrom == nil || v.ValueFrom.SecretKeyRef == nil:
			t.Errorf("%s does not come from the Secret", v.Name)
		case v.ValueFrom.SecretKeyRef.Name != "ordersync" || v.ValueFrom.SecretKeyRef.Key != v.Name:
			t.Errorf("%s comes from key %s of Secret %s", v.Name, v.ValueFrom.SecretKeyRef.Key, v.ValueFrom.SecretKeyRef.Name)
		}
	}
	if len(c.EnvFrom) == 0 {
		t.Errorf("nothing comes from ConfigMap %s", config.Name)
	}
	for i, from := range c.EnvFrom {
		if from.ConfigMapRef == nil || i == 0 && from.ConfigMapRef.Name != config.Name || i > 0 && !isTrue(from.ConfigMapRef.Optional) {
			t.Errorf("the environment does not come from ConfigMap %s first, and then from those that a team may make", config.Name)
		}
	}
	for _, mount := range c.VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if i < 0 || pod.Volumes[i].ConfigMap == nil || !isTrue(pod.Volumes[i].ConfigMap.Optional) {
			t.Errorf("%s is mounted, which is no ConfigMap that a team may make", mount.Name)
		}
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("service links or the account's token are not switched off")
	}
	if s := pod.SecurityContext; s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || *s.RunAsUser != dockerfile(t).user {
		t.Error("it may run as root, or as another user than the image's")
	}
	if s := c.SecurityContext; s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Contains(s.Capabilities.Drop, "ALL") {
		t.Error("it has more power than it needs")
	}
	if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
		t.Error("it names no requests or no limit of memory")
	}
}

func isTrue(b *bool) bool { return b != nil && *b }

func checkProbe(t *testing.T, name string, c corev1.Container, probe *corev1.Probe, path, help string) {
	t.Helper()
	if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != path {
		t.Errorf("the %s probe does not ask %s", name, path)
		return
	}
	port := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == probe.HTTPGet.Port.StrVal })
	if port < 0 {
		t.Errorf("the %s probe asks port %v, which the container does not name", name, probe.HTTPGet.Port)
		return
	}
	serves := regexp.MustCompile(`HTTP_ADDRESS .*\(default :(\d+)\)`).FindStringSubmatch(help)
	if serves == nil || serves[1] != strconv.Itoa(int(c.Ports[port].ContainerPort)) {
		t.Errorf("the %s probe asks port %d, the program serves %v", name, c.Ports[port].ContainerPort, serves)
	}
}
