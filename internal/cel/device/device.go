// Package device knows the expressions that select devices (resource.k8s.io, KEP-4381): what they see of a device, what they must
// evaluate to and what they may cost.
//
// Promises: nothing is made before the first expression. Does not know: claims, slices. Start reading at Compile.
package device

import (
	"errors"
	"fmt"
	"sync"

	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/ext"
	"github.com/timonel/timonel/internal/cel"
	resourcev1 "k8s.io/api/resource/v1"
)

// The sizes of what a driver publishes (resource/v1).
const (
	maxProperties = resourcev1.ResourceSliceMaxAttributesAndCapacitiesPerDevice
	maxID         = resourcev1.DeviceMaxIDLength
	maxDomain     = resourcev1.DeviceMaxDomainLength
)

var language = sync.OnceValues(func() (*cel.Language, error) {
	// Attributes and capacities are named "domain/id"; an expression goes by the domain, then the id.
	properties := func(of *cel.Type) *cel.Type {
		return cel.MapOf(cel.Text(maxDomain), cel.MapOf(cel.Text(maxID), of, maxProperties), maxProperties)
	}
	attribute := &cel.Type{CEL: celgo.DynType, MaxSize: resourcev1.DeviceAttributeMaxValueLength, MinBytes: 1}
	return cel.New(map[string]*cel.Type{"device": cel.Object("kubernetes.DRADevice", map[string]*cel.Type{
		"driver":                   cel.Text(resourcev1.DriverNameMaxLength),
		"attributes":               properties(attribute),
		"capacity":                 properties(cel.Scalar(cel.QuantityType)),
		"allowMultipleAllocations": cel.Scalar(celgo.BoolType),
	})}, ext.Bindings(ext.BindingsVersion(0)))
})

// Compile compiles the expression of a selector.
func Compile(text string) (*cel.Expression, error) {
	l, err := language()
	if err != nil {
		return nil, err
	}
	e, err := l.Compile(text)
	if err != nil {
		return nil, err
	}
	if t := e.Type(); !t.IsExactType(celgo.BoolType) && !t.IsExactType(celgo.DynType) {
		return nil, fmt.Errorf("must evaluate to bool or the unknown type, not %v", t)
	}
	return e, nil
}

// ErrTooDear is the error of an expression that compiles and can cost too much.
var ErrTooDear = errors.New("too complex, exceeds cost limit")

// Check compiles an expression and bounds what it can cost.
func Check(text string) error {
	e, err := Compile(text)
	if err != nil {
		return err
	}
	cost, err := e.Cost()
	if err != nil {
		return err
	}
	if cost > resourcev1.CELSelectorExpressionMaxCost {
		return ErrTooDear
	}
	return nil
}
