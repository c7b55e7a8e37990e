package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// tree lists what users see of a projected volume: name mode content.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		root, err := filepath.EvalSymlinks(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.Walk(root, func(name string, info os.FileInfo, err error) error {
			if err != nil || info.IsDir() {
				return err
			}
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			rest, _ := filepath.Rel(root, name)
			out = append(out, fmt.Sprintf("%s %o %s", filepath.Join(entry.Name(), rest), info.Mode().Perm(), b))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return out
}

func sameStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWriteAtomically(t *testing.T) {
	dir := t.TempDir()
	write := func(files map[string]volumeFile) string {
		t.Helper()
		if err := writeAtomically(dir, files, nil); err != nil {
			t.Fatal(err)
		}
		link, err := os.Readlink(filepath.Join(dir, "..data"))
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	file := func(s string) volumeFile { return volumeFile{data: []byte(s), mode: 0o640} }
	one := write(map[string]volumeFile{"a": file("1"), "sub/b": file("2"), "gone": file("x")})
	sameStrings(t, "first", tree(t, dir), "a 640 1", "gone 640 x", "sub/b 640 2")
	if link, err := os.Readlink(filepath.Join(dir, "a")); err != nil || link != "..data/a" {
		t.Errorf("a -> %q %v", link, err)
	}
	if again := write(map[string]volumeFile{"a": file("1"), "sub/b": file("2"), "gone": file("x")}); again != one {
		t.Errorf("an unchanged volume was written: %s then %s", one, again)
	}
	two := write(map[string]volumeFile{"a": file("3"), "sub/c": file("4")})
	if two == one {
		t.Error("a changed volume was not written")
	}
	sameStrings(t, "second", tree(t, dir), "a 640 3", "sub/c 640 4")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 4 { // ..data, its directory, a, sub
		t.Errorf("%d entries are left", len(entries))
	}
	write(nil)
	sameStrings(t, "empty", tree(t, dir))
}

func TestProjection(t *testing.T) {
	yes := true
	ref := func(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }
	read := int32(0o400)
	for _, x := range []struct {
		name    string
		sources []v1.VolumeProjection
		want    []string
		err     string
	}{
		{name: "config map", sources: []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm")}}}, want: []string{"b 644 \x01\x02", "k 644 v", "odd=key 644 x"}},
		{name: "items", sources: []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm"), Items: []v1.KeyToPath{{Key: "k", Path: "deep/er/k", Mode: &read}}}}}, want: []string{"deep/er/k 400 v"}},
		{name: "no key", sources: []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm"), Items: []v1.KeyToPath{{Key: "no", Path: "x"}}}}}, err: "references non-existent config key: no"},
		{name: "optional key", sources: []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm"), Optional: &yes, Items: []v1.KeyToPath{{Key: "no", Path: "x"}}}}}},
		{name: "no secret", sources: []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: ref("no")}}}, err: `secret "no" not found`},
		{name: "no secret key", sources: []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: ref("s"), Items: []v1.KeyToPath{{Key: "no", Path: "x"}}}}}, err: "references non-existent secret key: no"},
		{name: "optional secret", sources: []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: ref("no"), Optional: &yes}}}},
		{name: "together", sources: []v1.VolumeProjection{
			{Secret: &v1.SecretProjection{LocalObjectReference: ref("s")}},
			{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &v1.ObjectFieldSelector{FieldPath: "metadata.name"}}}}},
		}, want: []string{"name 644 pod", "p 644 word"}},
		{name: "escape", sources: []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("cm"), Items: []v1.KeyToPath{{Key: "k", Path: "../../k"}}}}}, err: `invalid path "../../k"`},
		{name: "unknown", sources: []v1.VolumeProjection{{ClusterTrustBundle: &v1.ClusterTrustBundleProjection{}}}, err: "volume type projected clusterTrustBundle is not supported by this node agent"},
		{name: "all errors", sources: []v1.VolumeProjection{{Secret: &v1.SecretProjection{LocalObjectReference: ref("no")}}, {ConfigMap: &v1.ConfigMapProjection{LocalObjectReference: ref("no")}}}, err: "secret \"no\" not found\nconfigmap \"no\" not found"},
	} {
		p := projection{pod: &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod"}}, objects: someObjects, mode: 0o644}
		files, err := p.collect(context.Background(), x.sources)
		if err != nil {
			if err.Error() != x.err {
				t.Errorf("%s: %v, want %s", x.name, err, x.err)
			}
			continue
		}
		if x.err != "" {
			t.Errorf("%s: no error, want %s", x.name, x.err)
		}
		dir := t.TempDir()
		if err := writeAtomically(dir, files, nil); err != nil {
			t.Fatal(err)
		}
		sameStrings(t, x.name, tree(t, dir), x.want...)
	}
}

func TestCheckHostPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		path string
		kind v1.HostPathType
		want string
	}{
		{"anything", v1.HostPathUnset, ""},
		{"file", v1.HostPathFile, ""},
		{"file", v1.HostPathDirectory, "is not a directory"},
		{"none", v1.HostPathDirectory, "is not a directory"},
		{"none", v1.HostPathFile, "is not a file"},
		{"made", v1.HostPathDirectoryOrCreate, ""},
		{"made", v1.HostPathDirectory, ""},
		{"new", v1.HostPathFileOrCreate, ""},
		{"new", v1.HostPathFile, ""},
		{"file", v1.HostPathSocket, "is not a socket file"},
		{"file", v1.HostPathCharDev, "is not a character device"},
		{"file", v1.HostPathBlockDev, "is not a block device"},
		{"file", "Odd", "is not known"},
		{"../x", v1.HostPathUnset, "must not contain '..'"},
	} {
		err := checkHostPath(&v1.HostPathVolumeSource{Path: dir + "/" + x.path, Type: &x.kind})
		if (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s as %s: %v, want %q", x.path, x.kind, err, x.want)
		}
	}
}

// Every volume source the API has is either made or refused by name.
func TestUnsupportedVolumesAreNamed(t *testing.T) {
	s := &volumeSet{dir: t.TempDir(), pod: func() *v1.Pod { return &v1.Pod{} }, facts: func() podFacts { return podFacts{} }, objects: someObjects}
	for want, source := range map[string]v1.VolumeSource{
		"persistentVolumeClaim":          {PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{}},
		"nfs":                            {NFS: &v1.NFSVolumeSource{}},
		"csi":                            {CSI: &v1.CSIVolumeSource{}},
		"image":                          {Image: &v1.ImageVolumeSource{}},
		"ephemeral":                      {Ephemeral: &v1.EphemeralVolumeSource{}},
		"emptyDir with medium HugePages": {EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumHugePages}},
		"projected podCertificate":       {Projected: &v1.ProjectedVolumeSource{Sources: []v1.VolumeProjection{{PodCertificate: &v1.PodCertificateProjection{}}}}},
		"unknown":                        {},
	} {
		_, _, err := s.mountOne(context.Background(), &v1.Volume{Name: "v", VolumeSource: source})
		var refused unsupportedVolume
		if !errors.As(err, &refused) || refused.kind != want {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestRenewTime(t *testing.T) {
	now := time.Unix(1000000, 0)
	for life, want := range map[time.Duration]time.Duration{
		time.Hour: 48 * time.Minute, 10 * time.Minute: 8 * time.Minute, 100 * time.Hour: 24 * time.Hour, 30 * time.Hour: 24 * time.Hour, 25 * time.Hour: 20 * time.Hour,
	} {
		if got := renewTime(now, now.Add(life)).Sub(now); got != want {
			t.Errorf("a token of %v is renewed after %v, want %v", life, got, want)
		}
	}
}

func TestCommonUser(t *testing.T) {
	user := func(n int64) *v1.SecurityContext { return &v1.SecurityContext{RunAsUser: &n} }
	five := int64(5)
	for _, x := range []struct {
		name string
		spec v1.PodSpec
		want string
	}{
		{"none", v1.PodSpec{Containers: []v1.Container{{}}}, "none"},
		{"pod", v1.PodSpec{SecurityContext: &v1.PodSecurityContext{RunAsUser: &five}, Containers: []v1.Container{{}, {}}}, "5"},
		{"same", v1.PodSpec{Containers: []v1.Container{{SecurityContext: user(7)}, {SecurityContext: user(7)}}}, "7"},
		{"differ", v1.PodSpec{Containers: []v1.Container{{SecurityContext: user(7)}, {SecurityContext: user(8)}}}, "none"},
		{"some", v1.PodSpec{Containers: []v1.Container{{SecurityContext: user(7)}, {}}}, "none"},
	} {
		got := "none"
		if n := commonUser(&v1.Pod{Spec: x.spec}); n != nil {
			got = fmt.Sprint(*n)
		}
		if got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}
