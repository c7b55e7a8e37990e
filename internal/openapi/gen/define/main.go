// Command define writes the OpenAPI definitions of the built-in types as Go
// code, from the types and their comments in the module cache. It is the first
// of the two steps of `go generate ./internal/openapi`; command build is the
// second. The code it writes is large and stays out of the repository.
package main

import (
	"log"
	"os"

	"k8s.io/gengo/v2"
	"k8s.io/gengo/v2/generator"
	"k8s.io/kube-openapi/cmd/openapi-gen/args"
	"k8s.io/kube-openapi/pkg/generators"
)

// packages hold every type that a group version serves, by default or not, and the types these refer to.
var packages = []string{
	"k8s.io/api/admissionregistration/v1",
	"k8s.io/api/admissionregistration/v1alpha1",
	"k8s.io/api/admissionregistration/v1beta1",
	"k8s.io/api/apiserverinternal/v1alpha1",
	"k8s.io/api/apps/v1",
	"k8s.io/api/authentication/v1",
	"k8s.io/api/authorization/v1",
	"k8s.io/api/autoscaling/v1",
	"k8s.io/api/autoscaling/v2",
	"k8s.io/api/batch/v1",
	"k8s.io/api/certificates/v1",
	"k8s.io/api/certificates/v1beta1",
	"k8s.io/api/coordination/v1",
	"k8s.io/api/coordination/v1alpha2",
	"k8s.io/api/coordination/v1beta1",
	"k8s.io/api/core/v1",
	"k8s.io/api/discovery/v1",
	"k8s.io/api/events/v1",
	"k8s.io/api/flowcontrol/v1",
	"k8s.io/api/lifecycle/v1alpha1",
	"k8s.io/api/networking/v1",
	"k8s.io/api/node/v1",
	"k8s.io/api/policy/v1",
	"k8s.io/api/rbac/v1",
	"k8s.io/api/resource/v1",
	"k8s.io/api/resource/v1alpha3",
	"k8s.io/api/resource/v1beta1",
	"k8s.io/api/resource/v1beta2",
	"k8s.io/api/scheduling/v1",
	"k8s.io/api/scheduling/v1alpha3", // batch/v1 Job refers to it too
	"k8s.io/api/scheduling/v1beta1",
	"k8s.io/api/storage/v1",
	"k8s.io/api/storagemigration/v1",
	"k8s.io/api/storagemigration/v1beta1",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1",
	"k8s.io/apimachinery/pkg/api/resource",
	"k8s.io/apimachinery/pkg/apis/meta/v1",
	"k8s.io/apimachinery/pkg/runtime",
	"k8s.io/apimachinery/pkg/util/intstr",
	"k8s.io/apimachinery/pkg/version",
	"k8s.io/kube-aggregator/pkg/apis/apiregistration/v1",
}

func main() {
	a := args.New()
	a.OutputDir = "definitions"
	a.OutputPkg = "github.com/timonel/timonel/internal/openapi/gen/definitions"
	a.OutputFile = "zz_generated.go"
	a.ReportFilename = os.DevNull
	targets := func(c *generator.Context) []generator.Target {
		return generators.GetOpenAPITargets(c, a, nil)
	}
	if err := gengo.Execute(generators.NameSystems(), generators.DefaultNameSystem(), targets, gengo.StdBuildTag, packages); err != nil {
		log.Fatalf("define: %v", err)
	}
}
