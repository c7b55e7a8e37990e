package robust_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// pair is a writer past the servers, as another program on the same etcd: it changes two objects in one transaction, which
// no request can. Who reads them through a server must see both changes or none.
type pair struct {
	*cluster
	log  *operations
	id   int
	dice *rand.Rand
	next int
}

func (p *pair) run(ctx context.Context) {
	for ctx.Err() == nil {
		a := p.dice.IntN(objects)
		b := (a + 1 + p.dice.IntN(objects-1)) % objects
		if !p.change(objectName(a), objectName(b)) {
			time.Sleep(50 * time.Millisecond) // etcd is away, or one of the objects
		}
		time.Sleep(time.Duration(p.dice.IntN(100)) * time.Millisecond) // load, not synchronisation
	}
}

// change gives both objects a new value if both are there and nobody else writes them meanwhile.
func (p *pair) change(names ...string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
	defer cancel()
	var conditions []clientv3.Cmp
	var writes []clientv3.Op
	var ops []operation
	call := time.Since(p.log.start)
	for _, name := range names {
		got, err := p.client.Get(ctx, keyPrefix+name)
		if err != nil || len(got.Kvs) == 0 {
			return false
		}
		stored := got.Kvs[0]
		p.next++
		value := newValue(p.id, p.next)
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(keyPrefix+name), "=", stored.ModRevision))
		writes = append(writes, clientv3.OpPut(keyPrefix+name, string(marker.ReplaceAllLiteral(stored.Value, []byte(value)))))
		ops = append(ops, operation{Client: p.id, Verb: update, Name: name, Expect: stored.ModRevision, Value: value, Call: call, Server: -1, Outcome: unknown})
	}
	answer, err := p.client.Txn(ctx).If(conditions...).Then(writes...).Commit()
	if err == nil && !answer.Succeeded {
		return true // somebody else wrote, which says nothing about either object alone
	}
	for _, op := range ops {
		op.Back = time.Since(p.log.start)
		if err == nil {
			op.Outcome, op.Revision = done, answer.Header.Revision
		}
		p.log.add(op)
	}
	return err == nil
}

// newValue is the value of a client's n-th write. All have one length, so that one can stand in another's place among stored bytes.
func newValue(client, n int) string { return fmt.Sprintf("v=%05d.%08d=", client, n) }
