// Command etcdserver is a stock etcd with one member, for tests: etcdserver DIR CLIENT_PORT PEER_PORT.
package main

import (
	"fmt"
	"net/url"
	"os"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "etcdserver:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 4 {
		return fmt.Errorf("usage: etcdserver DIR CLIENT_PORT PEER_PORT")
	}
	at := func(port string) []url.URL { return []url.URL{{Scheme: "http", Host: "127.0.0.1:" + port}} }
	c := embed.NewConfig()
	c.Dir, c.LogLevel = os.Args[1], "error"
	c.ListenClientUrls, c.AdvertiseClientUrls = at(os.Args[2]), at(os.Args[2])
	c.ListenPeerUrls, c.AdvertisePeerUrls = at(os.Args[3]), at(os.Args[3])
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	e, err := embed.StartEtcd(c)
	if err != nil {
		return err
	}
	<-e.Server.ReadyNotify()
	fmt.Println("ready")
	return <-e.Err()
}
