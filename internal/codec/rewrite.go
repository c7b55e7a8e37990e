package codec

import (
	"encoding/json"
	"errors"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
)

// Rewrite returns the object in a stored value of the hub definition d and the bytes that would take the value's
// place if it was written again unchanged. They are the same bytes when the value was written by a server of this version.
func Rewrite(d *kind.Definition, value []byte) (object.Object, []byte, error) {
	obj, err := DecodeStored(d, value, 0)
	if err != nil {
		return nil, nil, err
	}
	again, err := EncodeStored(d, obj)
	return obj, again, err
}

// StoredType returns what a stored value says it holds: apiVersion and kind.
func StoredType(value []byte) (apiVersion, kindName string, err error) {
	apiVersion, kindName, _, err = OpenEnvelope(value)
	if !errors.Is(err, ErrNotEnvelope) {
		return apiVersion, kindName, err
	}
	if value, err = storedJSON(value); err != nil {
		return "", "", err
	}
	var meta typeMeta
	err = json.Unmarshal(value, &meta)
	return meta.APIVersion, meta.Kind, err
}

// Undefaulted is DecodeStored without the defaults of fields that were unknown when the value was written.
func Undefaulted(d *kind.Definition, value []byte) (object.Object, error) {
	return decodeStored(d, value)
}
