// Command toolbox is the only program in the images of the container tests:
// a pause, a sleeper, a server, a shell without the shell.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 {
		pause()
	}
	run(args)
}

// run executes one word and its arguments; "then" chains words.
func run(args []string) {
	for i, arg := range args {
		if arg == "then" {
			run(args[:i])
			run(args[i+1:])
			return
		}
	}
	switch args[0] {
	case "pause":
		pause()
	case "sleep":
		time.Sleep(duration(args[1]))
	case "exit":
		code, err := strconv.Atoi(args[1])
		check(err)
		os.Exit(code)
	case "echo":
		fmt.Println(strings.Join(args[1:], " "))
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		for {
			time.Sleep(time.Hour)
		}
	case "polite": // exits 0 on SIGTERM after a time
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		fmt.Println("ready")
		<-stop
		if len(args) > 1 {
			time.Sleep(duration(args[1]))
		}
		os.Exit(0)
	case "env":
		env := os.Environ()
		sort.Strings(env)
		fmt.Println(strings.Join(env, "\n"))
	case "id":
		groups, err := os.Getgroups()
		check(err)
		sort.Ints(groups)
		host, err := os.Hostname()
		check(err)
		wd, err := os.Getwd()
		check(err)
		fmt.Println("uid", os.Getuid(), "gid", os.Getgid(), "groups", groups, "host", host, "wd", wd)
	case "caps":
		b, err := os.ReadFile("/proc/self/status")
		check(err)
		for _, line := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") || strings.HasPrefix(line, "Seccomp:") {
				fmt.Println(line)
			}
		}
	case "cat":
		for _, name := range args[1:] {
			b, err := os.ReadFile(name)
			check(err)
			os.Stdout.Write(b)
		}
	case "ls":
		for _, name := range args[1:] {
			info, err := os.Stat(name)
			check(err)
			owner := info.Sys().(*syscall.Stat_t)
			fmt.Println(info.Mode(), owner.Uid, owner.Gid, name)
		}
	case "write": // write FILE TEXT...
		check(os.WriteFile(args[1], []byte(strings.Join(args[2:], " ")), 0o644))
	case "fail-unless": // fail-unless FILE exists
		if _, err := os.Stat(args[1]); err != nil {
			fmt.Println("missing", args[1])
			os.Exit(1)
		}
	case "count": // count FILE: adds a byte, so that runs can be counted
		f, err := os.OpenFile(args[1], os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		check(err)
		_, err = f.WriteString("x")
		check(err)
		check(f.Close())
	case "fail-until": // fail-until FILE N: fails while FILE is shorter than N
		b, _ := os.ReadFile(args[1])
		n, err := strconv.Atoi(args[2])
		check(err)
		if len(b) < n {
			fmt.Println("only", len(b), "of", n)
			os.Exit(1)
		}
	case "eat": // eat MEGABYTES
		n, err := strconv.Atoi(args[1])
		check(err)
		var hold [][]byte
		for range n {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			hold = append(hold, b)
		}
		fmt.Println("ate", len(hold))
	case "serve": // serve ADDRESS [FILE]: 200, or 503 while FILE is missing
		http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
			if len(args) > 2 {
				if _, err := os.Stat(args[2]); err != nil {
					http.Error(w, "not yet", http.StatusServiceUnavailable)
					return
				}
			}
			fmt.Fprintln(w, "hello", r.URL.Path)
		})
		check(http.ListenAndServe(args[1], nil))
	case "get": // get URL
		response, err := http.Get(args[1])
		check(err)
		defer response.Body.Close()
		_, err = io.Copy(os.Stdout, response.Body)
		check(err)
	default:
		fmt.Fprintln(os.Stderr, "toolbox: unknown word", args[0])
		os.Exit(127)
	}
}

func pause() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for s := range signals {
		if s != syscall.SIGCHLD {
			os.Exit(0)
		}
		for {
			if pid, _ := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 {
				break
			}
		}
	}
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	check(err)
	return d
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "toolbox:", err)
		os.Exit(1)
	}
}
