package certificates

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/user"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func issue(t *testing.T, key *ecdsa.PrivateKey, from time.Time, lifetime time.Duration) string {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: from.Add(lifetime)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func texts(errs field.ErrorList) []string {
	var out []string
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func TestRequestSaysWhoAsked(t *testing.T) {
	r := &certificatesv1.CertificateSigningRequest{Spec: certificatesv1.CertificateSigningRequestSpec{Username: "evil", Groups: []string{"system:masters"}}}
	r.Status.Certificate = []byte("x")
	u := &user.Info{Name: "jane", UID: "1", Groups: []string{"dev"}, Extra: map[string][]string{"k": {"v"}}}
	prepareRequest(user.With(t.Context(), u), r)
	want := certificatesv1.CertificateSigningRequestSpec{Username: "jane", UID: "1", Groups: []string{"dev"}, Extra: map[string]certificatesv1.ExtraValue{"k": {"v"}}}
	if diff := cmp.Diff(want, r.Spec); diff != "" || r.Status.Certificate != nil {
		t.Errorf("status %+v, spec (-want +got):\n%s", r.Status, diff)
	}
}

func TestConditionsOfRequests(t *testing.T) {
	condition := func(t certificatesv1.RequestConditionType) certificatesv1.CertificateSigningRequestCondition {
		return certificatesv1.CertificateSigningRequestCondition{Type: t, Status: corev1.ConditionTrue}
	}
	approved, denied, failed := condition("Approved"), condition("Denied"), condition("Failed")
	views := certificateSigningRequest().Subresources
	check := func(name, door string, was, now []certificatesv1.CertificateSigningRequestCondition, want ...string) {
		t.Helper()
		old, obj := &certificatesv1.CertificateSigningRequest{}, &certificatesv1.CertificateSigningRequest{}
		old.Status.Conditions, obj.Status.Conditions = was, now
		view := views[door].View
		view.Prepare(t.Context(), obj, old)
		for _, c := range obj.Status.Conditions {
			if c.LastUpdateTime.IsZero() || c.LastTransitionTime.IsZero() {
				t.Errorf("%s: condition %s has no times", name, c.Type)
			}
		}
		if diff := cmp.Diff(want, texts(view.Validate(t.Context(), obj, old))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	type list = []certificatesv1.CertificateSigningRequestCondition
	check("approve", "approval", nil, list{approved})
	check("deny what is approved", "approval", list{approved}, list{approved, denied},
		"status.conditions: Invalid value: \"{conditions[{\\\"type\\\": \\\"Approved\\\"}], conditions[{\\\"type\\\": \\\"Denied\\\"}]}\": must specify at most one of: `conditions[{\"type\": \"Approved\"}]`, `conditions[{\"type\": \"Denied\"}]`")
	check("fail", "status", list{approved}, list{approved, failed})
	check("fail through approval", "approval", list{approved}, list{approved, failed}, `status.conditions: Forbidden: updates may not add a condition of type "Failed"`)
	check("approve through status", "status", nil, list{approved}, `status.conditions: Forbidden: updates may not add a condition of type "Approved"`)
	check("withdraw", "approval", list{denied}, nil, `status.conditions: Forbidden: updates may not remove a condition of type "Denied"`)
}

func TestCertificates(t *testing.T) {
	good := issue(t, newKey(t), time.Now(), time.Hour)
	check := func(name, was, now string, want ...string) {
		t.Helper()
		old, obj := &certificatesv1.CertificateSigningRequest{}, &certificatesv1.CertificateSigningRequest{}
		old.Status.Certificate, obj.Status.Certificate = []byte(was), []byte(now)
		if diff := cmp.Diff(want, texts(checkCertificate(obj, old))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	check("issued", "", "text\n"+good)
	check("kept", good, good)
	check("changed", good, good+good, "status.certificate: Forbidden: updates may not modify existing certificate content")
	check("cleared", good, "", "status.certificate: Forbidden: updates may not clear existing certificate content")
	check("a key", "", strings.ReplaceAll(good, "CERTIFICATE", "PRIVATE KEY"), `status.certificate: Invalid value: "<certificate data>": only CERTIFICATE PEM blocks are allowed, found "PRIVATE KEY"`)
	check("junk", "", "junk", `status.certificate: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`)
}

func TestPodCertificateIsIssuedOnce(t *testing.T) {
	key := newKey(t)
	stub, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{}}, key)
	if err != nil {
		t.Fatal(err)
	}
	from := time.Now().UTC().Truncate(time.Second)
	request := func(chain string, lifetime time.Duration, types ...string) *certificatesv1.PodCertificateRequest {
		r := &certificatesv1.PodCertificateRequest{}
		r.Spec.StubPKCS10Request, r.Spec.MaxExpirationSeconds = stub, ptr.To[int32](7200)
		for _, c := range types {
			r.Status.Conditions = append(r.Status.Conditions, metav1.Condition{Type: c, Status: metav1.ConditionTrue, Reason: "R", LastTransitionTime: metav1.NewTime(from)})
		}
		if chain != "" {
			r.Status.CertificateChain = chain
			r.Status.NotBefore, r.Status.NotAfter = ptr.To(metav1.NewTime(from)), ptr.To(metav1.NewTime(from.Add(lifetime)))
			r.Status.BeginRefreshAt = ptr.To(metav1.NewTime(from.Add(lifetime / 2)))
		}
		return r
	}
	fresh := request("", 0)
	check := func(name string, old, obj *certificatesv1.PodCertificateRequest, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, texts(validatePodRequestStatus(obj, old))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	good := issue(t, key, from, 2*time.Hour)
	check("issue", fresh, request(good, 2*time.Hour, "Issued"))
	check("deny", fresh, request("", 0, "Denied"))
	check("say nothing new", request(good, 2*time.Hour, "Issued"), request(good, 2*time.Hour, "Issued"))
	check("issue after denial", request("", 0, "Denied"), request(good, 2*time.Hour, "Issued"), "status: Invalid value: immutable after the request was issued, denied or failed")
	check("to another key", fresh, request(issue(t, newKey(t), from, 2*time.Hour), 2*time.Hour, "Issued"),
		`status.certificateChain: Invalid value: "<certificate data>": leaf certificate was not issued to the requested public key`)
	check("too long", fresh, request(issue(t, key, from, 3*time.Hour), 3*time.Hour, "Issued"),
		`status.certificateChain: Invalid value: "<certificate data>": leaf certificate lifetime must be <= spec.maxExpirationSeconds (2h0m0s)`)
	check("no certificate", fresh, request("", 0, "Issued"), `status.certificateChain: Invalid value: "<certificate data>": must contain at least one CERTIFICATE PEM block`)
}
