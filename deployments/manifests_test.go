// Package deployments holds no code: its tests read the manifests and the Dockerfile as a cluster
// and a builder would, and hold them against what the programs say of themselves.
package deployments_test

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
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
	"k8s.io/apimachinery/pkg/util/yaml"
	strict "sigs.k8s.io/yaml"
)

const base = "kubernetes"

// manifests are the base, decoded into their API types.
type manifests struct {
	config      corev1.ConfigMap
	deployments map[string]appsv1.Deployment
	jobs        map[string]batchv1.Job
	budgets     map[string]policyv1.PodDisruptionBudget
}

// kustomization has the fields that the base uses; another one fails the decoding.
type kustomization struct {
	APIVersion string   `json:"apiVersion"`
	Kind       string   `json:"kind"`
	Resources  []string `json:"resources"`
	Labels     []struct {
		Pairs map[string]string `json:"pairs"`
	} `json:"labels"`
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

func load(t *testing.T) manifests {
	t.Helper()
	var k kustomization
	decode(t, "kustomization.yaml", read(t, filepath.Join(base, "kustomization.yaml")), &k)
	if k.Kind != "Kustomization" || k.APIVersion != "kustomize.config.k8s.io/v1beta1" {
		t.Errorf("kustomization.yaml is a %s %s", k.APIVersion, k.Kind)
	}
	files, err := filepath.Glob(filepath.Join(base, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name != "kustomization.yaml" && !slices.Contains(k.Resources, name) {
			t.Errorf("kustomization.yaml does not list %s", name)
		}
	}
	m := manifests{deployments: map[string]appsv1.Deployment{}, jobs: map[string]batchv1.Job{}, budgets: map[string]policyv1.PodDisruptionBudget{}}
	for _, name := range k.Resources {
		documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(read(t, filepath.Join(base, name)))))
		for {
			text, err := documents.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			m.add(t, name, text)
		}
	}
	return m
}

func (m *manifests) add(t *testing.T, file string, text []byte) {
	t.Helper()
	var is metav1.TypeMeta
	if err := strict.Unmarshal(text, &is); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	switch is.APIVersion + " " + is.Kind {
	case "v1 ConfigMap":
		decode(t, file, text, &m.config)
	case "apps/v1 Deployment":
		var d appsv1.Deployment
		decode(t, file, text, &d)
		m.deployments[d.Name] = d
	case "batch/v1 Job":
		var j batchv1.Job
		decode(t, file, text, &j)
		m.jobs[j.Name] = j
	case "policy/v1 PodDisruptionBudget":
		var b policyv1.PodDisruptionBudget
		decode(t, file, text, &b)
		m.budgets[b.Name] = b
	default:
		t.Fatalf("%s holds a %s %s, which this test does not know", file, is.APIVersion, is.Kind)
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
			checkContainer(t, pod.Spec, container, built, m.config, text)
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
	if len(m.deployments) != 2 || len(m.jobs) != 1 || len(m.budgets) != 2 {
		t.Errorf("%d deployments, %d jobs, %d budgets", len(m.deployments), len(m.jobs), len(m.budgets))
	}
	if m.config.Data["EAGER_START"] != "false" {
		t.Error("EAGER_START would want MySQL in the starter")
	}
}

func TestSetupJob(t *testing.T) {
	m := load(t)
	job, ok := m.jobs["ordersync-setup"]
	if !ok {
		t.Fatal("there is none")
	}
	pod := job.Spec.Template.Spec
	container := only(t, pod)
	checkContainer(t, pod, container, dockerfile(t).programs, m.config, help(t, "worker"))
	if !slices.Equal(container.Command, []string{"/usr/local/bin/ordersync", "setup"}) {
		t.Errorf("it runs %v", container.Command)
	}
	if pod.RestartPolicy != corev1.RestartPolicyNever || job.Spec.TTLSecondsAfterFinished == nil {
		t.Error("the job would stay, or restart in place")
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
