//go:build stories

// Package kubectl tells stories that a user would recognise, with the real kubectl, a real
// etcd and real containers. A story is a file in testdata, in the language of
// github.com/rogpeppe/go-internal/testscript, with the commands of commands_test.go.
//
// Stories run side by side on one cluster. Each has a namespace of its own, $NS, which is kubectl's
// default there. A story that stops its cluster, or changes its node, starts another one: `cluster up`.
package kubectl

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

var (
	kubectlName = flag.String("kubectl", "kubectl", "which kubectl of bin to use")
	binDir      = flag.String("bin", "../../bin", "directory of timonel, kubectl and demo.tar")
)

// sideBySide is how many stories run at a time, more than there are processors: they mostly wait.
const sideBySide = "6"

var (
	bin    string   // -bin, absolute
	shared *cluster // which the stories share
)

func TestMain(m *testing.M) {
	parallel := flag.Lookup("test.parallel")
	initial := parallel.Value.String()
	flag.Parse()
	if parallel.Value.String() == initial {
		_ = parallel.Value.Set(sideBySide)
	}
	os.Exit(run(m))
}

func run(m *testing.M) (status int) {
	var err error
	if bin, err = filepath.Abs(*binDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if shared, err = newCluster(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the cluster:", err)
		return 1
	}
	defer func() {
		if err := shared.remove(); err != nil {
			fmt.Fprintln(os.Stderr, "remove the cluster:", err)
			status = 1
		}
	}()
	if err := shared.start(); err != nil {
		fmt.Fprintln(os.Stderr, "start the cluster:", err)
		return 1
	}
	return m.Run()
}

func TestStories(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: setup, Cmds: commands})
}

// setup gives a story its namespace and its environment.
func setup(e *testscript.Env) error {
	name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
	ns := strings.ReplaceAll(strings.ToLower(name), "_", "-")
	e.Setenv("NS", ns)
	e.Setenv("HOME", e.WorkDir)
	e.Setenv("PATH", kubectlPath(e)+string(os.PathListSeparator)+bin+string(os.PathListSeparator)+os.Getenv("PATH")+":/usr/sbin:/sbin")
	e.Setenv("BIN", bin)
	e.Values[own{}] = &own{}
	e.Defer(func() {
		if c := e.Values[own{}].(*own).cluster; c != nil {
			if err := c.remove(); err != nil {
				e.T().Log(err)
			}
		}
	})
	if err := use(e.Setenv, e.WorkDir, ns, shared); err != nil {
		return err
	}
	e.Setenv("KUBECACHEDIR", filepath.Join(shared.dir, "cache"))
	client, err := shared.client()
	if err != nil {
		return err
	}
	if err := makeNamespace(client, ns); err != nil {
		return err
	}
	e.Defer(func() {
		if t, ok := e.T().(interface{ Failed() bool }); ok && t.Failed() {
			e.T().Log(whatHappened(e.Getenv("KUBECONFIG"), ns))
		}
		_ = client.CoreV1().Namespaces().Delete(context.Background(), ns, metav1.DeleteOptions{})
	})
	return nil
}

// makeNamespace makes a namespace, and waits until it has what comes with every namespace.
func makeNamespace(client kubernetes.Interface, ns string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	core := client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	return wait.PollUntilContextCancel(ctx, pause, true, func(ctx context.Context) (bool, error) {
		_, noAccount := core.ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		_, noCA := core.ConfigMaps(ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return noAccount == nil && noCA == nil, nil
	})
}

// kubectlPath is a directory in which the kubectl under test is called kubectl.
func kubectlPath(e *testscript.Env) string {
	dir := filepath.Join(e.WorkDir, ".bin")
	_ = os.MkdirAll(dir, 0o755)
	_ = os.Symlink(filepath.Join(bin, *kubectlName), filepath.Join(dir, "kubectl"))
	return dir
}

// use makes a cluster the one that a story's commands talk to.
func use(setenv func(key, value string), work, ns string, c *cluster) error {
	path := filepath.Join(work, ".kubeconfig")
	if err := c.kubeconfigFor(ns, path); err != nil {
		return err
	}
	setenv("KUBECONFIG", path)
	setenv("URL", c.url)
	setenv("NODE", c.node)
	setenv("DATA", c.dir)
	setenv("PORT", c.port)
	setenv("NODEPORT", c.nodePort)
	setenv("BRIDGE", c.bridge)
	setenv("PODCIDR", c.podCIDR)
	setenv("PKI", filepath.Join(c.dir, "pki"))
	return nil
}

// own is the key, and the value, of a story's own cluster.
type own struct{ cluster *cluster }
