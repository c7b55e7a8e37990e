package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of the web server.
const (
	headerTimeout = 10 * time.Second
	maxHeader     = 64 << 10
	maxBody       = 1 << 20
)

// identity is what the server shows. The pod passes it down:
//
//	env: [{name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}, …]
type identity struct{ Pod, Namespace, Node, IP string }

func whoAmI(name string) identity {
	me := identity{Pod: name, Namespace: os.Getenv("POD_NAMESPACE"), Node: os.Getenv("NODE_NAME"), IP: os.Getenv("POD_IP")}
	if me.Pod == "" {
		me.Pod = os.Getenv("POD_NAME")
	}
	if me.Pod == "" {
		me.Pod, _ = os.Hostname() // a pod's host name is its name
	}
	if me.Namespace == "" {
		data, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
		me.Namespace = strings.TrimSpace(string(data))
	}
	if me.IP == "" {
		me.IP = firstAddress()
	}
	return me
}

func firstAddress() string {
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if network, ok := a.(*net.IPNet); ok && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	return ""
}

// serve answers until SIGTERM or SIGINT, then finishes what is under way.
func serve(args []string, io stdio) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(io.err)
	address := flags.String("address", ":8080", "where to listen")
	name := flags.String("name", "", "the name to show; by default the pod's")
	drain := flags.Duration("drain", 10*time.Second, "how long requests may go on after SIGTERM")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return fail(io, "serve", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()

	me := whoAmI(*name)
	server := &http.Server{
		Handler:           logged(handler(me, os.Exit), io.out),
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeader,
	}
	fmt.Fprintf(io.out, "%s pod %s listens on %s\n", now(), me.Pod, listener.Addr())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	select {
	case err := <-done:
		return fail(io, "serve", err)
	case <-ctx.Done():
	}
	fmt.Fprintf(io.out, "%s asked to stop, finishing requests\n", now())
	limit, cancel := context.WithTimeout(context.Background(), *drain)
	defer cancel()
	if err := server.Shutdown(limit); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fail(io, "serve", err)
	}
	fmt.Fprintf(io.out, "%s stopped\n", now())
	return 0
}

func now() string { return time.Now().UTC().Format(time.RFC3339) }

// handler serves the page, health, the caller's own request, and a way to fail.
func handler(me identity, exit func(int)) http.Handler {
	var served atomic.Int64
	started := time.Now()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("POST /echo", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, http.MaxBytesReader(w, r.Body, maxBody))
	})
	mux.HandleFunc("POST /exit", func(w http.ResponseWriter, r *http.Request) {
		status, err := strconv.Atoi(r.FormValue("status"))
		if err != nil {
			status = 1
		}
		last := fmt.Sprintf("ending with status %d\n", status)
		w.Header().Set("Content-Length", strconv.Itoa(len(last))) // so that the answer is whole before the end
		fmt.Fprint(w, last)
		http.NewResponseController(w).Flush()
		exit(status)
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		v := view{me, served.Add(1), int(time.Since(started).Seconds()), r.RemoteAddr}
		w.Header().Set("Cache-Control", "no-store")
		if strings.Contains(r.Header.Get("Accept"), "text/html") {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			fmt.Fprintf(w, asHTML, html.EscapeString(v.Pod), html.EscapeString(v.Namespace), html.EscapeString(v.Node),
				html.EscapeString(v.IP), v.Count, v.Seconds, html.EscapeString(v.From))
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(w, asText, v.Pod, v.Namespace, v.Node, v.IP, v.Count, v.Seconds, v.From)
	})
	return mux
}

// view is what the page tells.
type view struct {
	identity
	Count   int64 // requests answered, this one included
	Seconds int   // since the start
	From    string
}

const asText = "pod        %s\nnamespace  %s\nnode       %s\naddress    %s\nrequest    %d\nrunning    %ds\nyou        %s\n"

const asHTML = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>%[1]s</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 32rem; padding: 0 1rem; color: #123; background: #f4f8fa }
h1 { font-size: 2rem; overflow-wrap: anywhere } td { padding: .2rem 1.5rem .2rem 0 } td:first-child { color: #678 }
</style>
<p>This page comes from the pod</p><h1>%[1]s</h1>
<table>
<tr><td>namespace<td>%[2]s
<tr><td>node<td>%[3]s
<tr><td>address<td>%[4]s
<tr><td>request<td>%[5]d
<tr><td>running<td>%[6]d s
<tr><td>you<td>%[7]s
</table>
`

// logged writes one line for each request, after it.
func logged(next http.Handler, out io.Writer) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(answer, r)
		fmt.Fprintf(out, "%s %s %s %s %d %s\n", now(), r.RemoteAddr, r.Method, r.URL.RequestURI(), answer.status, time.Since(begin).Round(time.Microsecond))
	})
}

type answer struct {
	http.ResponseWriter
	status int
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// fetch is the client side: it shows that names and services work from inside a pod.
func fetch(args []string, io stdio) int {
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	flags.SetOutput(io.err)
	status := flags.Bool("status", false, "print the status instead of the body")
	timeout := flags.Duration("timeout", 10*time.Second, "when to give up")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 {
		return fail(io, "fetch", errors.New("want one URL"))
	}
	url := flags.Arg(0)
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	client := http.Client{Timeout: *timeout}
	answer, err := client.Get(url)
	if err != nil {
		return fail(io, "fetch", err)
	}
	defer answer.Body.Close()
	if *status {
		fmt.Fprintln(io.out, answer.Status)
	} else if err := copyAll(io.out, answer.Body); err != nil {
		return fail(io, "fetch", err)
	}
	if answer.StatusCode >= 400 {
		fmt.Fprintf(io.err, "fetch: %s\n", answer.Status)
		return 1
	}
	return 0
}

func copyAll(to io.Writer, from io.Reader) error {
	_, err := io.Copy(to, from)
	return err
}
