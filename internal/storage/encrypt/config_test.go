package encrypt

import (
	"strings"
	"testing"
)

const (
	key16 = "AAAAAAAAAAAAAAAAAAAAAA=="
	key32 = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

// file is a configuration with these resources and providers in flow style.
func file(lists ...string) string {
	text := "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n"
	for i := 0; i < len(lists); i += 2 {
		text += "- resources: [" + lists[i] + "]\n  providers: [" + lists[i+1] + "]\n"
	}
	return text
}

func TestParse(t *testing.T) {
	for _, text := range []string{
		file("secrets, configmaps, pandas.awesome.bears.example", "{aescbc: {keys: [{name: key1, secret: "+key16+"}]}}, {identity: {}}"),
		file("events", "{identity: {}}", "'*.apps'", "{aesgcm: {keys: [{name: a, secret: "+key32+"}, {name: b, secret: "+key32+"}]}}", "'*.*'", "{secretbox: {keys: [{name: a, secret: "+key32+"}]}}"),
		file("secrets", "{identity: {}}", "secrets", "{identity: {}}"),
		file("'*.', deployments.apps", "{kms: {apiVersion: v2, name: a, endpoint: 'unix:///run/kms.sock', timeout: 10s}}, {kms: {apiVersion: v2, name: b, endpoint: 'unix:///@kms'}}"),
		`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],"providers":[{"identity":{}}]}]}`,
	} {
		if _, err := parse([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	check := func(text string, want ...string) {
		t.Helper()
		_, err := parse([]byte(text))
		if err == nil {
			t.Errorf("%s is taken", text)
			return
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s\nis refused with %v\nwant %s", text, err, w)
			}
		}
		if strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%v shows a secret", err)
		}
	}
	const id = "{identity: {}}"
	kms := func(rest string) string {
		return file("secrets", "{kms: {apiVersion: v2, name: a, endpoint: 'unix:///a', "+rest+"}}")
	}
	check("", "Object 'Kind' is missing")
	check("kind: [", "yaml")
	check("[]", "not an object")
	check("apiVersion: v1\nkind: EncryptionConfig", `no kind "EncryptionConfig" is registered for version "v1"`)
	check(file(), "resources: Required value: at least one resource is required")
	check(file("", id), "resources[0].resources: Required value")
	check(file("secrets", ""), "resources[0].providers: Required value: at least one provider is required")
	check(file("secrets", "{}"), "resources[0].providers[0]: Invalid value", "does not contain any of the expected providers")
	check(file("secrets", "{identity: {}, aesgcm: {keys: [{name: a, secret: "+key16+"}]}}"), "more than one provider specified in a single element")
	check(file("secrets", id)+"pandas: 1\n", `strict decoding error: unknown field "pandas"`)
	check(file("secrets", "{aescbc: {keys: [{name: a, secret: "+key16+", panda: x}]}}"), `unknown field "resources[0].providers[0].aescbc.keys[0].panda"`)
	check(file("secrets", id)+"kind: EncryptionConfiguration\n", "already set in map")
	check(file("secrets", "{aescbc: {keys: []}}"), "resources[0].providers[0].aescbc.keys: Required value: at least one key is required")
	check(file("secrets", "{aescbc: {keys: [{name: a, secret: 'c2VjcmV0!'}]}}"), `resources[0].providers[0].aescbc.keys[0].secret: Invalid value: "REDACTED": secrets must be base64 encoded`)
	check(file("secrets", "{aesgcm: {keys: [{name: a, secret: c2VjcmV0}]}}"), "secret is not of the expected length, got 6, expected one of [16 24 32]")
	check(file("secrets", "{secretbox: {keys: [{name: a, secret: "+key16+"}]}}"), "got 16, expected one of [32]")
	check(file("secrets", "{aesgcm: {keys: [{secret: "+key16+"}, {name: b}]}}"), "keys[0].name: Required value", "keys[1].secret: Required value")

	check(file("Secrets", id), "should not contain capital letters")
	check(file("'*'", id), "use '*.' to encrypt all the resources from core API group")
	check(file("'secrets.*'", id), "encrypting the same resource across groups is not supported")
	check(file("events.events.k8s.io", id), "Use 'events' instead")
	check(file("'*.events.k8s.io'", id), "Use 'events' instead")
	check(file("'*.extensions'", id), "'extensions' group has been removed")
	check(file("apiserveripinfo", id), "resources which do not have REST API/s cannot be encrypted")
	check(file("secrets, secrets", id), "the same resource cannot be specified multiple times")
	check(file("secrets, '*.'", id), "using overlapping resources")
	check(file("'*.apps', '*.*'", id), "using overlapping resources")
	check(file("'*.*'", id, "secrets", id), `resources[1].resources[0]: Invalid value: "secrets": resource "secrets" is masked by earlier rule "*.*"`)
	check(file("'*.apps'", id, "deployments.apps", id), "is masked by earlier rule")
	check(file("'*.'", id, "'*.'", id), "is masked by earlier rule")

	check(file("secrets", "{kms: {name: a, endpoint: 'unix:///a', cachesize: 10}}"), "KMSv1 is deprecated", "Set --feature-gates=KMSv1=true")
	check(file("secrets", "{kms: {apiVersion: v3, name: a, endpoint: 'unix:///a'}}"), "unsupported apiVersion v3 for KMS provider, only v1 and v2 are supported")
	check(file("secrets", "{kms: {apiVersion: v2, name: a, endpoint: 'tcp://a'}}"), `unsupported scheme "tcp" for KMS provider, only unix is supported`)
	check(file("secrets", "{kms: {apiVersion: v2, name: a}}"), "endpoint is a mandatory field")
	check(file("secrets", "{kms: {apiVersion: v2, endpoint: 'unix:///a'}}"), "name is a mandatory field")
	check(file("secrets", "{kms: {apiVersion: v2, name: 'a:b', endpoint: 'unix:///a'}}"), "must not contain ':'")
	check(kms("cachesize: 5"), "cachesize is not supported in v2")
	check(kms("timeout: 0s"), "timeout should be a positive value")
	check(kms("timeout: 3s")+"- resources: [configmaps]\n  providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///b'}}]\n", "duplicate KMS provider name a, names must be unique")
}

func TestRules(t *testing.T) {
	c, err := parse([]byte(file(
		"events", "{identity: {}}",
		"secrets, widgets.example.com", "{aesgcm: {keys: [{name: a, secret: "+key16+"}]}}",
		"secrets", "{identity: {}}",
		"'*.apps'", "{aescbc: {keys: [{name: a, secret: "+key16+"}]}}",
		"'*.*'", "{secretbox: {keys: [{name: a, secret: "+key32+"}]}}")))
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRules(c, func(kmsConfig) *plugin { return nil })
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, byName bool, want string) {
		t.Helper()
		p, _ := r.of(ParseResource(name), byName)
		var got []string
		for _, one := range p {
			got = append(got, one.prefix())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	check("events", false, "")
	check("secrets", false, "k8s:enc:aesgcm:v1:a: ")
	check("widgets.example.com", false, "k8s:enc:aesgcm:v1:a:")
	check("widgets.other.example.com", false, "k8s:enc:secretbox:v1:a:")
	check("deployments.apps", false, "k8s:enc:aescbc:v1:a:")
	check("configmaps", false, "k8s:enc:secretbox:v1:a:")
	check("apiservices.apiregistration.k8s.io", true, "")
	check("secrets", true, "k8s:enc:aesgcm:v1:a: ")
}

func FuzzParse(f *testing.F) {
	f.Add(file("secrets, '*.apps'", "{aescbc: {keys: [{name: key1, secret: "+key16+"}]}}, {kms: {apiVersion: v2, name: a, endpoint: 'unix:///a'}}"))
	f.Add(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"EncryptionConfiguration","resources":[{"resources":["*.*"],"providers":[{"identity":{}}]}]}`)
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse([]byte(text))
		if err != nil {
			return
		}
		if _, err := newRules(c, func(kmsConfig) *plugin { return &plugin{} }); err != nil {
			t.Errorf("%q parses, and makes no rules: %v", text, err)
		}
	})
}
