package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNormalizeImage(t *testing.T) {
	for in, want := range map[string]string{
		"nginx": "nginx:latest", "nginx:1": "nginx:1", "a/b": "a/b:latest", "localhost:5000/a": "localhost:5000/a:latest",
		"localhost:5000/a:1": "localhost:5000/a:1", "r.example/a/b-c_d__e:v1.2": "r.example/a/b-c_d__e:v1.2",
		"a@sha256:" + strings.Repeat("0", 64):   "a@sha256:" + strings.Repeat("0", 64),
		"a:1@sha256:" + strings.Repeat("0", 64): "a:1@sha256:" + strings.Repeat("0", 64),
		"":                                      "error", "Upper": "error", "a b": "error", "a:": "error", "a@sha256:0": "error", "/a": "error", "a//b": "error", "http://a/b": "error",
	} {
		got, err := normalizeImage(in)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzNormalizeImage(f *testing.F) {
	f.Add("localhost:5000/a:1")
	f.Fuzz(func(t *testing.T, s string) {
		once, err := normalizeImage(s)
		if err != nil {
			return
		}
		if twice, err := normalizeImage(once); err != nil || twice != once {
			t.Errorf("%q becomes %q becomes %q %v", s, once, twice, err)
		}
	})
}

func TestPullPolicy(t *testing.T) {
	for _, x := range []struct {
		image  string
		policy v1.PullPolicy
		want   v1.PullPolicy
	}{
		{"a", "", v1.PullAlways}, {"a:latest", "", v1.PullAlways}, {"a:1", "", v1.PullIfNotPresent}, {"a:1", v1.PullNever, v1.PullNever}, {"a", v1.PullIfNotPresent, v1.PullIfNotPresent},
	} {
		if got := pullPolicy(&v1.Container{Image: x.image, ImagePullPolicy: x.policy}); got != x.want {
			t.Errorf("%+v: %s", x, got)
		}
	}
}

func TestCredentials(t *testing.T) {
	secret := func(auths string) *v1.Secret {
		return &v1.Secret{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`{"auths":{` + auths + `}}`)}}
	}
	secrets := []*v1.Secret{
		secret(`"r.example":{"username":"u","password":"p"},"https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="}`),
		secret(`"r.example/team":{"username":"team"},"*.gcr.example":{"username":"glob"},"r.example:5000":{"username":"port"}`),
		{Type: v1.SecretTypeDockercfg, Data: map[string][]byte{v1.DockerConfigKey: []byte(`{"old.example":{"username":"old"}}`)}},
		{Type: v1.SecretTypeDockerConfigJson, Data: map[string][]byte{v1.DockerConfigJsonKey: []byte(`broken`)}},
	}
	for image, want := range map[string]string{
		"r.example/a:1":          "u:p",
		"r.example/team/a:1":     "team: u:p",
		"r.example/teams/a":      "u:p",
		"r.example:5000/a":       "port:",
		"nginx":                  "hub:secret",
		"docker.io/library/x:1":  "hub:secret",
		"user/x@sha256:00":       "hub:secret",
		"eu.gcr.example/p/x":     "glob:",
		"a.b.gcr.example/p/x":    "",
		"old.example/x":          "old:",
		"elsewhere.example/team": "",
	} {
		var got []string
		for _, a := range credentialsFor(image, secrets) {
			got = append(got, a.Username+":"+a.Password)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", image, got, want)
		}
	}
}

func TestPodDNS(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# host\nnameserver 192.0.2.53\nsearch lan. example.org\noptions timeout:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	two := "2"
	for _, x := range []struct {
		name string
		spec v1.PodSpec
		dns  []string
		want string
		fell bool
	}{
		{"default", v1.PodSpec{DNSPolicy: v1.DNSDefault}, []string{"10.0.0.10"}, "[192.0.2.53] [lan example.org] [timeout:1]", false},
		{"cluster", v1.PodSpec{DNSPolicy: v1.DNSClusterFirst}, []string{"10.0.0.10"}, "[10.0.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local lan example.org] [ndots:5]", false},
		{"no cluster DNS", v1.PodSpec{DNSPolicy: v1.DNSClusterFirst}, nil, "[192.0.2.53] [lan example.org] [timeout:1]", true},
		{"host network", v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, HostNetwork: true}, []string{"10.0.0.10"}, "[192.0.2.53] [lan example.org] [timeout:1]", false},
		{"with host net", v1.PodSpec{DNSPolicy: v1.DNSClusterFirstWithHostNet, HostNetwork: true}, []string{"10.0.0.10"}, "[10.0.0.10] [ns.svc.cluster.local svc.cluster.local cluster.local lan example.org] [ndots:5]", false},
		{"none", v1.PodSpec{DNSPolicy: v1.DNSNone, DNSConfig: &v1.PodDNSConfig{Nameservers: []string{"1.1.1.1"}, Searches: []string{"x"}, Options: []v1.PodDNSConfigOption{{Name: "debug"}}}}, nil, "[1.1.1.1] [x] [debug]", false},
		{"merged", v1.PodSpec{DNSPolicy: v1.DNSClusterFirst, DNSConfig: &v1.PodDNSConfig{Nameservers: []string{"1", "2", "3"}, Options: []v1.PodDNSConfigOption{{Name: "ndots", Value: &two}}}}, []string{"10.0.0.10"},
			"[10.0.0.10 1 2] [ns.svc.cluster.local svc.cluster.local cluster.local lan example.org] [ndots:2]", false},
	} {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: x.spec}
		dns, fell, err := podDNS(pod, &Config{ClusterDNS: x.dns, ClusterDomain: "cluster.local", ResolvConf: file})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(dns.Servers, " ", dns.Searches, " ", dns.Options); got != x.want || fell != x.fell {
			t.Errorf("%s: %s %v, want %s %v", x.name, got, fell, x.want, x.fell)
		}
	}
}

func TestWriteHosts(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web-0", Namespace: "shop"}, Spec: v1.PodSpec{Subdomain: "web", HostAliases: []v1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"a", "b"}}}}}
	file, err := writeHosts(t.TempDir(), pod, []string{"10.0.0.7", "fd00::7"}, "cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n" +
		"10.0.0.7\tweb-0.web.shop.svc.cluster.local\tweb-0\nfd00::7\tweb-0.web.shop.svc.cluster.local\tweb-0\n\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"
	if string(b) != want {
		t.Errorf("hosts:\n%s\nwant:\n%s", b, want)
	}
}

func TestHostname(t *testing.T) {
	override := "other.name"
	long := strings.Repeat("a", 62) + "-b"
	for _, x := range []struct {
		pod          v1.Pod
		host, domain string
	}{
		{v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, "p", ""},
		{v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{Hostname: "h"}}, "h", ""},
		{v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: long}}, strings.Repeat("a", 62), ""},
		{v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: v1.PodSpec{HostnameOverride: &override, Subdomain: "s"}}, "other.name", ""},
	} {
		if host, domain := hostname(&x.pod, "d"); host != x.host || domain != x.domain {
			t.Errorf("%s %s, want %s %s", host, domain, x.host, x.domain)
		}
	}
}

func TestNonRoot(t *testing.T) {
	yes, zero, five := true, int64(0), int64(5)
	image := func(uid *int64, name string) *runtimeapi.Image {
		i := &runtimeapi.Image{Username: name}
		if uid != nil {
			i.Uid = &runtimeapi.Int64Value{Value: *uid}
		}
		return i
	}
	for _, x := range []struct {
		name  string
		sc    v1.SecurityContext
		image *runtimeapi.Image
		want  string
	}{
		{"not asked", v1.SecurityContext{}, image(&zero, ""), ""},
		{"root image", v1.SecurityContext{RunAsNonRoot: &yes}, image(&zero, ""), "image will run as root"},
		{"unset image", v1.SecurityContext{RunAsNonRoot: &yes}, image(nil, ""), "image will run as root"},
		{"named image", v1.SecurityContext{RunAsNonRoot: &yes}, image(nil, "app"), "image has non-numeric user (app), cannot verify user is non-root"},
		{"numbered image", v1.SecurityContext{RunAsNonRoot: &yes}, image(&five, ""), ""},
		{"asked for root", v1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &zero}, image(&five, ""), "runAsUser breaks non-root policy"},
		{"asked for another", v1.SecurityContext{RunAsNonRoot: &yes, RunAsUser: &five}, image(&zero, ""), ""},
	} {
		err := checkNonRoot(&v1.Pod{}, &v1.Container{SecurityContext: &x.sc}, x.image)
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s: %v, want %q", x.name, err, x.want)
		}
	}
}

func TestLinuxSecurity(t *testing.T) {
	yes, no, user, group, fs := true, false, int64(7), int64(8), int64(9)
	unmasked := v1.UnmaskedProcMount
	local := "p.json"
	pod := &v1.Pod{Spec: v1.PodSpec{ShareProcessNamespace: &yes, HostIPC: true, SecurityContext: &v1.PodSecurityContext{
		RunAsUser: &user, FSGroup: &fs, SupplementalGroups: []int64{3}, SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault},
	}}}
	out, err := linuxSecurity(pod, &v1.Container{SecurityContext: &v1.SecurityContext{
		RunAsGroup: &group, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &v1.Capabilities{Add: []v1.Capability{"NET_ADMIN"}, Drop: []v1.Capability{"ALL"}},
	}}, &runtimeapi.Image{}, "", "/seccomp")
	if err != nil {
		t.Fatal(err)
	}
	if out.RunAsUser.Value != 7 || out.RunAsGroup.Value != 8 || !out.NoNewPrivs || !out.ReadonlyRootfs || !slices.Equal(out.SupplementalGroups, []int64{3, 9}) ||
		out.NamespaceOptions.Pid != runtimeapi.NamespaceMode_POD || out.NamespaceOptions.Ipc != runtimeapi.NamespaceMode_NODE || out.NamespaceOptions.Network != runtimeapi.NamespaceMode_POD ||
		out.Seccomp.ProfileType != runtimeapi.SecurityProfile_RuntimeDefault || len(out.MaskedPaths) == 0 || len(out.ReadonlyPaths) == 0 ||
		!slices.Equal(out.Capabilities.AddCapabilities, []string{"NET_ADMIN"}) || !slices.Equal(out.Capabilities.DropCapabilities, []string{"ALL"}) {
		t.Errorf("%+v", out)
	}
	out, err = linuxSecurity(&v1.Pod{}, &v1.Container{SecurityContext: &v1.SecurityContext{ProcMount: &unmasked, SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: &local}}}, &runtimeapi.Image{Username: "app"}, "target", "/seccomp")
	if err != nil {
		t.Fatal(err)
	}
	if len(out.MaskedPaths) != 0 || out.Seccomp.LocalhostRef != "/seccomp/p.json" || out.RunAsUsername != "app" || out.NamespaceOptions.TargetId != "target" || out.NamespaceOptions.Pid != runtimeapi.NamespaceMode_TARGET {
		t.Errorf("%+v", out)
	}
	escape := "../x"
	if _, err := linuxSecurity(&v1.Pod{}, &v1.Container{SecurityContext: &v1.SecurityContext{SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: &escape}}}, nil, "", "/seccomp"); err == nil {
		t.Error("a seccomp profile outside its directory was taken")
	}
}

func TestUnsupportedIsNamed(t *testing.T) {
	no := false
	enabled := v1.RecursiveReadOnlyEnabled
	pod := &v1.Pod{Spec: v1.PodSpec{HostUsers: &no, ResourceClaims: []v1.PodResourceClaim{{}}, Containers: []v1.Container{{
		VolumeDevices: []v1.VolumeDevice{{}}, VolumeMounts: []v1.VolumeMount{{RecursiveReadOnly: &enabled, BindMountOptions: []string{"noexec"}}},
		RestartPolicyRules: []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers}},
		Resources:          v1.ResourceRequirements{Limits: list("cpu=1 example.com/gpu=1")},
	}}}}
	sameStrings(t, "unsupported", unsupported(pod),
		"block volumes (volumeDevices)", "dynamic resource allocation (spec.resourceClaims)", "resource example.com/gpu",
		"restartPolicyRules with action RestartAllContainers", "user namespaces (spec.hostUsers: false)",
		"volumeMounts.bindMountOptions", "volumeMounts.recursiveReadOnly: Enabled")
	if got := unsupported(&v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{wants("a", "cpu=1", "memory=1Gi")}}}); len(got) != 0 {
		t.Errorf("an ordinary pod: %v", got)
	}
}

func TestBackoff(t *testing.T) {
	now := time.Unix(1000000, 0)
	var b backoff
	if at := b.readyAt(now); !at.Equal(now) {
		t.Error("the first failure waits")
	}
	for _, want := range []time.Duration{10, 20, 40, 80, 160, 300, 300} {
		b.attempt(now, now)
		if got := b.readyAt(now).Sub(now); got != want*time.Second {
			t.Errorf("pause %v, want %d s", got, want)
		}
		now = now.Add(want * time.Second)
	}
	now = now.Add(11 * time.Minute)
	if at := b.readyAt(now); !at.Equal(now) {
		t.Error("a long good run is not forgiven")
	}
	b.attempt(now, now)
	if got := b.readyAt(now).Sub(now); got != 10*time.Second {
		t.Errorf("pause %v after a long good run", got)
	}
}

// asking runs a prober over the answers one after the other (y, n, e for
// error), and tells what it reported and when.
func asking(t *testing.T, probe v1.Probe, kind probeKind, initial bool, answers string) string {
	t.Helper()
	var told []string
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		p := &prober{
			kind: kind, probe: &probe, began: began, initial: initial,
			ask: func(context.Context) (bool, string, error) {
				if answers == "" {
					cancel()
					return false, "", nil
				}
				answer := answers[0]
				answers = answers[1:]
				if answer == 'e' {
					return false, "", errors.New("cannot ask")
				}
				return answer == 'y', "why", nil
			},
			report: func(ok bool) bool {
				told = append(told, fmt.Sprintf("%v@%d", ok, int(time.Since(began).Seconds())))
				return kind == readinessProbe || ok && kind == livenessProbe
			},
			complain: func(string, string) {},
		}
		p.run(ctx)
		cancel()
	})
	return strings.Join(told, " ")
}

func TestProber(t *testing.T) {
	every := func(initial, period, success, failure int32) v1.Probe {
		return v1.Probe{InitialDelaySeconds: initial, PeriodSeconds: period, SuccessThreshold: success, FailureThreshold: failure, TimeoutSeconds: 1}
	}
	for _, x := range []struct {
		probe   v1.Probe
		kind    probeKind
		initial bool
		answers string
		want    string
	}{
		{every(0, 10, 1, 3), readinessProbe, false, "yyy", "true@0"},
		{every(5, 10, 1, 3), readinessProbe, false, "ny", "true@15"},
		{every(0, 10, 1, 3), readinessProbe, false, "ynnynnn", "true@0 false@60"},
		{every(0, 10, 2, 1), readinessProbe, false, "yynyy", "true@10 false@20 true@40"},
		{every(0, 10, 1, 3), livenessProbe, true, "yynnn", "true@0 false@40"},
		{every(0, 10, 1, 3), livenessProbe, true, "nnynn", "true@20"},
		{every(0, 10, 1, 2), livenessProbe, true, "nenx", "false@20"}, // an error counts neither way
		{every(0, 1, 1, 3), startupProbe, false, "nny", "true@2"},
		{every(0, 1, 1, 3), startupProbe, false, "nnn", "false@2"},
		{every(0, 10, 1, 3), readinessProbe, true, "nnn", "false@20"},
	} {
		if got := asking(t, x.probe, x.kind, x.initial, x.answers); got != x.want {
			t.Errorf("%s %s: %q, want %q", x.kind, x.answers, got, x.want)
		}
	}
}

func TestProbeTargets(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Host != "asked.example" || r.Header.Get("User-Agent") != "kube-probe/v1" || r.Header.Get("X-A") != "b" {
				w.WriteHeader(http.StatusTeapot)
			}
		case "/redirect":
			http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()
	host, portText, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port := intstr.Parse(portText)
	target := &probeTarget{podIP: host, version: "v1", container: &v1.Container{Ports: []v1.ContainerPort{{Name: "web", ContainerPort: port.IntVal}}}}
	get := func(path string) *v1.Probe {
		return &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromString("web"), HTTPHeaders: []v1.HTTPHeader{{Name: "Host", Value: "asked.example"}, {Name: "X-A", Value: "b"}}}}}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := intstr.FromInt(closed.Addr().(*net.TCPAddr).Port)
	_ = closed.Close()
	for _, x := range []struct {
		name   string
		probe  *v1.Probe
		ok     bool
		output string
	}{
		{"http", get("/ok"), true, ""},
		{"http fails", get("/bad"), false, "HTTP probe failed with statuscode: 500"},
		{"redirect elsewhere", get("/redirect"), true, ""},
		{"redirect loop", get("/loop"), false, "stopped after 10 redirects"},
		{"tcp", &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: port}}}, true, ""},
		{"tcp refused", &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: nobody}}}, false, "connection refused"},
		{"http refused", &v1.Probe{ProbeHandler: v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Port: nobody, Path: "/"}}}, false, "connection refused"},
		{"grpc refused", &v1.Probe{TimeoutSeconds: 1, ProbeHandler: v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: nobody.IntVal}}}, false, "failed to connect service"},
	} {
		ok, output, err := target.ask(t.Context(), x.probe)
		if err != nil || ok != x.ok || !strings.Contains(output, x.output) {
			t.Errorf("%s: %v %q %v, want %v %q", x.name, ok, output, err, x.ok, x.output)
		}
	}
	if _, _, err := target.ask(t.Context(), &v1.Probe{ProbeHandler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromString("none")}}}); err == nil {
		t.Error("a port nobody named was asked")
	}
}

func TestLogTail(t *testing.T) {
	log := "half a line\n2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr P two\n2026-01-01T00:00:00Z stderr F  three\n"
	if got := logTail(log); !strings.HasSuffix(got, "one\ntwo three\n") {
		t.Errorf("%q", got)
	}
	if got := logTail(strings.Repeat("t s F 0123456789\n", 1000)); len(got) > maxTerminationLog || !strings.HasSuffix(got, "0123456789\n") {
		t.Errorf("%d bytes", len(got))
	}
}

func TestRotatedLogs(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "0.log")
	for _, name := range []string{"0.log", "0.log.20260102-000000", "0.log.20260101-000000.gz", "0.log.20260103-000000.tmp", "1.log"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	names, err := rotatedLogs(file)
	if err != nil {
		t.Fatal(err)
	}
	sameStrings(t, "rotated", names, file+".20260101-000000.gz", file+".20260102-000000")
	if err := compress(file + ".20260102-000000"); err != nil {
		t.Fatal(err)
	}
	removeLog(file)
	left, _ := filepath.Glob(dir + "/*")
	sameStrings(t, "left", left, filepath.Join(dir, "1.log"))
}

func TestRuntimeTrouble(t *testing.T) {
	ready := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: "RuntimeReady", Status: true}, {Type: "NetworkReady", Status: true}}}}
	neither := &runtimeapi.StatusResponse{Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{{Type: "RuntimeReady", Reason: "a", Message: "b"}, {Type: "NetworkReady", Reason: "c", Message: "d"}}}}
	for _, x := range []struct {
		up   bool
		err  error
		st   *runtimeapi.StatusResponse
		want string
	}{
		{true, nil, ready, ""},
		{false, nil, ready, "container runtime is down"},
		{true, nil, nil, "container runtime is down"},
		{true, nil, neither, "[container runtime not ready: RuntimeReady=false reason:a message:b, container runtime network not ready: NetworkReady=false reason:c message:d]"},
		{true, errors.New("slow"), ready, "container runtime status check may not have completed yet: slow"},
	} {
		if got := runtimeTrouble(x.up, x.err, x.st); got != x.want {
			t.Errorf("%q, want %q", got, x.want)
		}
	}
}

func TestCgroupPaths(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "a-b"}}
	for _, x := range []struct {
		parent, driver string
		qos            v1.PodQOSClass
		want           string
	}{
		{"", driverCgroupfs, v1.PodQOSBurstable, ""},
		{"/kubepods", driverCgroupfs, v1.PodQOSGuaranteed, "/kubepods/poda-b"},
		{"/kubepods", driverCgroupfs, v1.PodQOSBurstable, "/kubepods/burstable/poda-b"},
		{"kubepods", driverCgroupfs, v1.PodQOSBestEffort, "/kubepods/besteffort/poda-b"},
		{"/kubepods", driverSystemd, v1.PodQOSGuaranteed, "kubepods-poda_b.slice"},
		{"kubepods.slice", driverSystemd, v1.PodQOSBurstable, "kubepods-burstable-poda_b.slice"},
	} {
		pod.Status.QOSClass = x.qos
		if got := newPodCgroups(&Config{CgroupParent: x.parent, CgroupDriver: x.driver}, false).path(pod); got != x.want {
			t.Errorf("%+v: %s", x, got)
		}
	}
}

func TestConfigComplete(t *testing.T) {
	_, err := Config{NodeIP: "x", DataDir: "rel", CgroupDriver: "odd"}.complete()
	for _, want := range []string{"NodeName is required", "RuntimeEndpoint is required", `NodeIP "x" is not an IP address`, `DataDir "rel" is not an absolute path`, `CgroupDriver "odd"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
	c, err := Config{NodeName: "N", DataDir: "/d", RuntimeEndpoint: "/s", NodeIP: "::1", NodeIPs: []string{"::1", "1.2.3.4"}}.complete()
	if err != nil || c.NodeName != "n" || c.KubeletPort != 10250 || c.MaxPods != 110 || !slices.Equal(c.hostIPs(), []string{"::1", "1.2.3.4"}) {
		t.Errorf("%+v %v", c, err)
	}
}
