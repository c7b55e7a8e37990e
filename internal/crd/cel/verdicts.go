package cel

import (
	"crypto/sha256"
	"strconv"
	"sync"

	language "github.com/timonel/timonel/internal/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// verdict is what compiling an expression on a schema led to.
type verdict struct {
	cost       uint64 // of one run, at most
	transition bool   // it looks at the old value
	err        error  // it does not compile
	unknown    error  // it does, and its cost cannot be told
}

// verdicts remembers verdicts. Compiling takes a third of a millisecond, and whoever keeps definitions in step (an operator,
// a chart) sends the same rules again with each change: gateways alone have hundreds.
//
// Two generations bound it: when the young one is full it becomes the old one, and what is asked for again moves back.
type verdicts struct {
	sync.Mutex
	young, old map[verdictKey]verdict
}

// verdictKey stands for all that a verdict depends on.
type verdictKey [sha256.Size]byte

// maxVerdicts bounds a generation; an entry takes about 100 bytes.
const maxVerdicts = 1024

var known verdicts

// role is what an expression is for.
type role string

const (
	isCondition role = "condition"
	isMessage   role = "message"
)

// ground is the schema that expressions are about, as a part of keys.
type ground []byte

func groundOf(props *apiextensions.JSONSchemaProps, root bool) (ground, error) {
	schema, err := props.Marshal()
	hash := sha256.Sum256(strconv.AppendBool(schema, root))
	return hash[:], err
}

func (g ground) key(text string, role role, optionalOld bool) verdictKey {
	hash := sha256.New()
	hash.Write(g) // of one length
	hash.Write(strconv.AppendBool([]byte(role), optionalOld))
	hash.Write([]byte(text))
	return verdictKey(hash.Sum(nil))
}

// judge returns the verdict for a key; compile is called if it is not known.
func (v *verdicts) judge(key verdictKey, compile func() (*language.Expression, error)) verdict {
	if found, ok := v.find(key); ok {
		return found
	}
	var made verdict
	e, err := compile()
	if made.err = err; err == nil {
		made.transition = e.Uses("oldSelf")
		made.cost, made.unknown = e.Cost()
	}
	v.add(key, made)
	return made
}

func (v *verdicts) find(key verdictKey) (verdict, bool) {
	v.Lock()
	defer v.Unlock()
	if found, ok := v.young[key]; ok {
		return found, true
	}
	found, ok := v.old[key]
	if ok {
		v.put(key, found)
	}
	return found, ok
}

func (v *verdicts) add(key verdictKey, made verdict) {
	v.Lock()
	defer v.Unlock()
	v.put(key, made)
}

func (v *verdicts) put(key verdictKey, made verdict) {
	if v.young == nil || len(v.young) >= maxVerdicts {
		v.old, v.young = v.young, map[verdictKey]verdict{}
	}
	v.young[key] = made
}
