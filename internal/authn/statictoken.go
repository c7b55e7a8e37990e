package authn

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/timonel/timonel/internal/user"
)

// StaticTokens are tokens that were written down beforehand (--token-auth-file).
type StaticTokens map[string]*user.Info

// OpenStaticTokens reads a token file.
func OpenStaticTokens(path string) (StaticTokens, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read token file: %w", err)
	}
	defer f.Close()
	tokens, err := ParseStaticTokens(f)
	if err != nil {
		return nil, fmt.Errorf("read token file %s: %w", path, err)
	}
	return tokens, nil
}

// ParseStaticTokens reads lines "token,user,uid[,"group1,group2"]" (docs:
// "Static token file"). Lines without a token are left out; of two lines with the same token the last counts.
func ParseStaticTokens(r io.Reader) (StaticTokens, error) {
	lines := csv.NewReader(r)
	lines.FieldsPerRecord = -1
	tokens := StaticTokens{}
	for n := 1; ; n++ {
		record, err := lines.Read()
		switch {
		case errors.Is(err, io.EOF):
			return tokens, nil
		case err != nil:
			return nil, err
		case len(record) < 3:
			return nil, fmt.Errorf("record %d: must have at least 3 columns (token, user name, user uid), found %d", n, len(record))
		case record[0] == "":
			continue
		}
		u := &user.Info{Name: record[1], UID: record[2]}
		if len(record) >= 4 {
			for group := range strings.SplitSeq(record[3], ",") {
				if group = strings.TrimSpace(group); group != "" {
					u.Groups = append(u.Groups, group)
				}
			}
		}
		tokens[record[0]] = u
	}
}

// Token implements TokenMethod.
func (t StaticTokens) Token(_ context.Context, token string, _ []string) (*Verified, error) {
	if u, ok := t[token]; ok {
		return &Verified{User: u}, nil
	}
	return nil, nil
}
