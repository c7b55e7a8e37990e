package cel

import (
	celgo "github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types/ref"
)

// How functions are declared: an overload's id follows from its name, the owner's and the arguments', as CEL's own do.

func takes(list ...*celgo.Type) []*celgo.Type { return list }

// function declares name(argument).
func function(name, id string, argument, result *celgo.Type, f func(ref.Val) ref.Val) celgo.EnvOption {
	return celgo.Function(name, celgo.Overload(id, takes(argument), result, celgo.UnaryBinding(f)))
}

// method declares owner.name().
func method(name, id string, owner, result *celgo.Type, f func(ref.Val) ref.Val) celgo.EnvOption {
	return celgo.Function(name, celgo.MemberOverload(id, takes(owner), result, celgo.UnaryBinding(f)))
}

// method1 declares owner.name(argument).
func method1(name, id string, owner, argument, result *celgo.Type, f func(a, b ref.Val) ref.Val) celgo.EnvOption {
	return celgo.Function(name, celgo.MemberOverload(id, takes(owner, argument), result, celgo.BinaryBinding(f)))
}
