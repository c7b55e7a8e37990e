package encrypt

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"k8s.io/apimachinery/pkg/util/validation"
)

// envelope is the EncryptedObject that is stored for a value that a KMS plug-in protects: the value,
// encrypted with a key that only the plug-in can decrypt, and what it needs for that.
type envelope struct {
	data        []byte            // 1: the encrypted value
	keyID       string            // 2: of the plug-in's key
	source      []byte            // 3: the seed, or key, of data, as the plug-in encrypted it
	annotations map[string][]byte // 4: the plug-in's own
	sourceType  sourceType        // 5
}

// sourceType says what source is, decrypted.
type sourceType uint64

const (
	// aesGCMKey: the AES-GCM key of the value. Servers before 1.29 wrote that.
	aesGCMKey sourceType = 0
	// hkdfSeed: a seed of keys; see seed.
	hkdfSeed sourceType = 1
)

// Limits of what a plug-in may answer (k8s.io/kms/apis/v2).
const (
	maxKeyID       = 1 << 10
	maxSource      = 1 << 10
	maxAnnotations = 32 << 10
)

var errEnvelope = errors.New("the stored data is no EncryptedObject")

// append appends the message, fields and annotations in order.
func (e *envelope) append(b []byte) []byte {
	b = appendBytes(b, 1, e.data)
	b = appendBytes(b, 2, []byte(e.keyID))
	b = appendBytes(b, 3, e.source)
	for _, name := range slices.Sorted(maps.Keys(e.annotations)) {
		entry := protowire.AppendTag(nil, 1, protowire.BytesType)
		entry = protowire.AppendString(entry, name)
		entry = protowire.AppendTag(entry, 2, protowire.BytesType)
		entry = protowire.AppendBytes(entry, e.annotations[name])
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendBytes(b, entry)
	}
	if e.sourceType != 0 {
		b = protowire.AppendTag(b, 5, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(e.sourceType))
	}
	return b
}

func appendBytes(b []byte, number protowire.Number, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	b = protowire.AppendTag(b, number, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}

// parseEnvelope reads a message. It shares memory with b.
func parseEnvelope(b []byte) (*envelope, error) {
	e := &envelope{}
	err := fields(b, func(number protowire.Number, content []byte, value uint64) error {
		switch number {
		case 1:
			e.data = content
		case 2:
			e.keyID = string(content)
		case 3:
			e.source = content
		case 4:
			return e.annotate(content)
		case 5:
			e.sourceType = sourceType(value)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return e, e.check()
}

// annotate reads an entry of the map.
func (e *envelope) annotate(entry []byte) error {
	var name string
	var value []byte
	err := fields(entry, func(number protowire.Number, content []byte, _ uint64) error {
		switch number {
		case 1:
			name = string(content)
		case 2:
			value = content
		}
		return nil
	})
	if e.annotations == nil {
		e.annotations = map[string][]byte{}
	}
	e.annotations[name] = value
	return err
}

// fields calls do with each field of a message: content for bytes, value for varints.
func fields(b []byte, do func(number protowire.Number, content []byte, value uint64) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%w: %w", errEnvelope, protowire.ParseError(n))
		}
		b = b[n:]
		var content []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errEnvelope, protowire.ParseError(n))
		}
		if err := do(number, content, value); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// check refuses what no server wrote, and what a plug-in may not answer.
func (e *envelope) check() error {
	switch {
	case len(e.data) == 0:
		return fmt.Errorf("%w: encrypted data is empty", errEnvelope)
	case e.sourceType > hkdfSeed:
		return fmt.Errorf("%w: unknown encryptedDEKSourceType: %d", errEnvelope, e.sourceType)
	}
	return checkSource(e.keyID, e.source, e.annotations)
}

// checkSource checks a seed as a plug-in encrypted it.
func checkSource(keyID string, source []byte, annotations map[string][]byte) error {
	if err := checkKeyID(keyID); err != nil {
		return err
	}
	switch {
	case len(source) == 0:
		return errors.New("encrypted DEK source is empty")
	case len(source) > maxSource:
		return fmt.Errorf("encrypted DEK source is %d bytes, which exceeds the max size of %d", len(source), maxSource)
	}
	size := 0
	for name, value := range annotations {
		if problems := validation.IsFullyQualifiedDomainName(nil, name); len(problems) > 0 {
			return fmt.Errorf("annotation key %q: %w", name, problems.ToAggregate())
		}
		size += len(name) + len(value)
	}
	if size > maxAnnotations {
		return fmt.Errorf("total size of annotations is %d bytes, which exceeds the max size of %d", size, maxAnnotations)
	}
	return nil
}

func checkKeyID(id string) error {
	switch {
	case id == "":
		return errors.New("keyID is empty")
	case len(id) > maxKeyID:
		return fmt.Errorf("keyID is %d bytes, which exceeds the max size of %d", len(id), maxKeyID)
	}
	return nil
}
