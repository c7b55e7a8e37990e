package cel

import (
	"strings"
	"testing"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

func compile(t testing.TB, variables map[string]*Type, text string) (*Expression, error) {
	t.Helper()
	l, err := New(variables, Authorizer(), Mutation())
	if err != nil {
		t.Fatal(err)
	}
	return l.Compile(text)
}

// Every expression is true.
func TestFunctions(t *testing.T) {
	for text := range strings.Lines(`
		isURL("https://example.com:80/a?b=c") && isURL("/path") && !isURL("../up") && !isURL("")
		url("https://example.com:80/").getHost() == "example.com:80" && url("https://example.com:80/").getHostname() == "example.com"
		url("https://[::1]:80/").getHostname() == "::1" && url("https://example.com:80/").getPort() == "80" && url("/path").getScheme() == ""
		url("https://example.com/with space/").getEscapedPath() == "/with%20space/"
		url("https://example.com/?k=a&k=b").getQuery()["k"] == ["a", "b"]
		url("https://a/b") == url("https://a/b") && url("https://a/b") != url("https://a/c")
		"abc 123".find("[0-9]+") == "123" && "abc".find("[0-9]+") == ""
		"1 2 3".findAll("[0-9]") == ["1", "2", "3"] && "1 2 3".findAll("[0-9]", 2) == ["1", "2"] && "a".findAll("[0-9]") == []
		[1, 2, 2].isSorted() && !["b", "a"].isSorted() && [].isSorted()
		[1, 3].sum() == 4 && [1.5, 2.5].sum() == 4.0 && [duration("1m"), duration("1s")].sum() == duration("1m1s") && [0].filter(x, x > 1).sum() == 0
		[3, 1].min() == 1 && ["a", "c"].max() == "c"
		[1, 2, 2].indexOf(2) == 1 && [1, 2, 2].lastIndexOf(2) == 2 && [1].indexOf(3) == -1
		quantity("1.5Gi") == quantity("1536Mi") && isQuantity("1m") && !isQuantity("1mm")
		quantity("50k").add(20) == quantity("50020") && quantity("50k").sub(quantity("1k")) == quantity("49k")
		quantity("200M").isGreaterThan(quantity("1M")) && quantity("1").isLessThan(quantity("2")) && quantity("1").compareTo(quantity("1000m")) == 0
		quantity("50k").asInteger() == 50000 && !quantity("1.5").isInteger() && quantity("1.5").asApproximateFloat() == 1.5 && quantity("-1").sign() == -1
		semver("1.2.3").major() == 1 && semver("1.2.3").minor() == 2 && semver("1.2.3").patch() == 3
		isSemver("1.0.0-alpha.1+b") && !isSemver("1.0") && !isSemver("01.0.0") && isSemver("v1.0", true) && semver("v01.2", true) == semver("1.2.0")
		semver("1.0.0-alpha").isLessThan(semver("1.0.0")) && semver("1.0.0-alpha.1").isLessThan(semver("1.0.0-alpha.beta")) && semver("1.0.0-2").isLessThan(semver("1.0.0-11"))
		semver("10.0.0").isGreaterThan(semver("9.0.0")) && semver("1.0.0+a").compareTo(semver("1.0.0+b")) == 0
		!format.dns1123Label().validate("my-label").hasValue() && format.dns1123Label().validate("No").hasValue()
		format.named("uuid").value().validate("123e4567-e89b-12d3-a456-426614174000") == optional.none() && !format.named("odd").hasValue()
		format.date().validate("2026-02-31").value() == ["invalid date"] && !format.datetime().validate("2026-02-01T00:00:00Z").hasValue()
		!format.dns1123LabelPrefix().validate("a-").hasValue() && format.byte().validate("??").hasValue() && format.labelValue().validate("-").hasValue()
		ip("192.168.0.1").family() == 4 && isIP("::1") && cidr("192.168.0.0/24").containsIP(ip("192.168.0.9")) && cidr("10.0.0.0/8").prefixLength() == 8
		sets.contains([1, 2], [1]) && {"a": 1}.all(k, v, v == 1) && "a,b".split(",") == ["a", "b"]
		jsonpatch.escapeKey("a/b~c") == "a~1b~0c"
		JSONPatch{op: "add", path: "/a"}.op == "add" && JSONPatch{op: "add"}.from == "" && !has(JSONPatch{op: "add"}.path)
		Object{spec: Object.spec{replicas: 1}}.spec.replicas == 1 && has(Object{spec: 1}.spec)
		dyn([3, 1]).min() == 1 && dyn(["b", "a"]).max() == "b"
	`) {
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		e, err := compile(t, nil, text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got, _, err := e.Program().Eval(map[string]any{}); err != nil || got != types.True {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}

func TestFailures(t *testing.T) {
	for text, want := range map[string]string{
		`url("a b")`:                  "URL parse error",
		`"a".find("[")`:               "Illegal regex",
		`[1].filter(x, false).min()`:  "min called on empty list",
		`quantity("x")`:               "quantities must match",
		`quantity("0.5").asInteger()`: "cannot convert value to integer",
		`semver("1")`:                 "is not a semantic version",
		`semver("99999999999999999999.0.0").major()`: "type conversion error",
	} {
		e, err := compile(t, nil, text)
		if err == nil {
			_, _, err = e.Program().Eval(map[string]any{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// What is known of a variable is checked when an expression is written.
func TestTypes(t *testing.T) {
	variables := map[string]*Type{"self": Object("self", map[string]*Type{
		"name": Text(10), "ports": ListOf(Object("port", map[string]*Type{"port": Scalar(celgo.IntType)}), 5), "labels": MapOf(AnyText(), AnyText(), 0), "free": Dyn(),
	}), "authorizer": {CEL: AuthorizerType}}
	for text, want := range map[string]string{
		`self.name == "a" && self.ports.all(p, p.port > 0) && self.labels.x == "" && self.free.a.b == 1`:                         "",
		`authorizer.group("apps").resource("deployments").namespace("x").check("get").allowed()`:                                 "",
		`authorizer.path("/healthz").check("get").reason() + authorizer.serviceAccount("a", "b").path("/").check("get").error()`: "",
		`self.nope`:                     "undefined field 'nope'",
		`self.ports.all(p, p.nope > 0)`: "undefined field 'nope'",
		`self.name + 1`:                 "no matching overload",
		`["a"].sum()`:                   "no matching overload",
		`[1, "a"]`:                      "expected type 'int' but found 'string'",
		`authorizer.check("get")`:       "no matching overload",
		`JSONPatch{nope: 1}`:            "undefined field 'nope'",
	} {
		_, err := compile(t, variables, text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.HasPrefix(err.Error(), "compilation failed: ERROR: <input>:1:") || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// The estimate is never below the bill, and follows from the sizes that types allow.
func TestCost(t *testing.T) {
	variables := map[string]*Type{"self": Object("self", map[string]*Type{
		"short": Text(10), "long": AnyText(), "list": ListOf(Text(10), 5), "ints": ListOf(Scalar(celgo.IntType), 5), "many": ListOf(AnyText(), 0),
		"map": MapOf(Text(5), Scalar(celgo.IntType), 3),
	})}
	value := map[string]any{
		"short": "https://a/", "long": strings.Repeat("x", 1000), "list": []string{"aaaaaaaaaa", "bbbbbbbbbb", "c", "d", "e"}, "ints": []int64{1, 2, 3, 4, 5},
		"many": []string{"a"}, "map": map[string]int64{"a": 1, "b": 2, "c": 3},
	}
	for text, most := range map[string]uint64{
		`self.short == "a"`:                                10,
		`isURL(self.short)`:                                10,
		`self.short.find("[a-z]+") != ""`:                  20,
		`self.list.isSorted() && self.ints.sum() < 100`:    30,
		`self.list.all(e, e.startsWith("a"))`:              60,
		`self.list.join(",") != ""`:                        30,
		`self.map.all(k, k.size() > 0)`:                    40,
		`has(self.short)`:                                  2,
		`self.list.max().lowerAscii() != ""`:               20,
		`self.short.replace("h", "i") != ""`:               40,
		`self.list.exists(a, self.list.exists(b, a == b))`: 250,
		`isQuantity(self.short) || isSemver(self.short) || format.uuid().validate(self.short).hasValue()`: 40,
	} {
		e, err := compile(t, variables, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		estimate, err := e.Cost()
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		_, details, err := e.Program().Eval(map[string]any{"self": value})
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if actual := *details.ActualCost(); actual > estimate || estimate > most {
			t.Errorf("%s: estimated %d (at most %d), cost %d", text, estimate, most, actual)
		}
	}
	for _, dear := range []string{`self.many.all(x, self.many.all(y, x == y))`, `self.long.matches("a.*b.*c.*d.*e.*f.*")`} {
		e, err := compile(t, variables, dear)
		if err != nil {
			t.Fatal(err)
		}
		if estimate, err := e.Cost(); err != nil || estimate < 1_000_000 {
			t.Errorf("%s: %d, %v", dear, estimate, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(`semver("1.0.0").isLessThan(semver("v2", true))`)
	f.Add(`quantity("1").add(1) == quantity("2") && [1].sum() == 1`)
	f.Add(`Object{a: Object.a{b: [JSONPatch{op: "add"}]}}`)
	variables := map[string]*Type{"self": Dyn()}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 200 {
			return
		}
		e, err := compile(t, variables, text)
		if err != nil {
			return
		}
		if _, err := e.Cost(); err != nil {
			return
		}
		_, _, _ = e.Program().Eval(map[string]any{"self": text})
	})
}

func FuzzSemver(f *testing.F) {
	f.Add("1.2.3-a.1+b", "v01.2")
	f.Fuzz(func(t *testing.T, a, b string) {
		v, okA := parseSemver(normalized(a))
		w, okB := parseSemver(normalized(b))
		if okA && okB && v.compare(w) != -w.compare(v) {
			t.Errorf("%q and %q are compared differently in the other order", a, b)
		}
	})
}
