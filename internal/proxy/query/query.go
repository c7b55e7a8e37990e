// Package query reads and writes the options of logs, exec, attach and
// port-forward in URLs: from the client's query to the API types, and from
// there to the query that kubelets understand, which names some of them
// differently.
//
// Promises: values are read as the API server reads query parameters (a
// boolean without a value is true, unknown parameters are ignored), and checked
// with its messages.
//
// Does not know: pods. All functions are pure. Start reading at Log.
package query

import (
	"fmt"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// reader converts parameters and keeps the first error.
type reader struct {
	values url.Values
	err    error
}

// of gives the values of a parameter to convert, unless it is absent.
func (r *reader) of(name string, convert func(in []string) error) {
	in, ok := r.values[name]
	if !ok || r.err != nil {
		return
	}
	if err := convert(in); err != nil {
		r.err = apierrors.NewBadRequest(err.Error())
	}
}

func (r *reader) text(name string, to *string) {
	r.of(name, func(in []string) error { return runtime.Convert_Slice_string_To_string(&in, to, nil) })
}

func (r *reader) texts(name string, to *[]string) {
	r.of(name, func(in []string) error { *to = in; return nil })
}

func (r *reader) boolean(name string, to *bool) {
	r.of(name, func(in []string) error { return runtime.Convert_Slice_string_To_bool(&in, to, nil) })
}

func (r *reader) number(name string, to **int64) {
	r.of(name, func(in []string) error { return runtime.Convert_Slice_string_To_Pointer_int64(&in, to, nil) })
}

// Log reads PodLogOptions. The error is a 400.
func Log(values url.Values) (*corev1.PodLogOptions, error) {
	r, o := reader{values: values}, &corev1.PodLogOptions{}
	r.text("container", &o.Container)
	r.boolean("follow", &o.Follow)
	r.boolean("previous", &o.Previous)
	r.number("sinceSeconds", &o.SinceSeconds)
	r.of("sinceTime", func(in []string) error { return metav1.Convert_Slice_string_To_Pointer_v1_Time(&in, &o.SinceTime, nil) })
	r.boolean("timestamps", &o.Timestamps)
	r.number("tailLines", &o.TailLines)
	r.number("limitBytes", &o.LimitBytes)
	r.boolean("insecureSkipTLSVerifyBackend", &o.InsecureSkipTLSVerifyBackend)
	r.of("stream", func(in []string) error { o.Stream = &in[0]; return nil })
	if r.err != nil {
		return nil, r.err
	}
	return o, nil
}

// Exec reads PodExecOptions. The error is a 400.
func Exec(values url.Values) (*corev1.PodExecOptions, error) {
	r, o := reader{values: values}, &corev1.PodExecOptions{}
	r.boolean("stdin", &o.Stdin)
	r.boolean("stdout", &o.Stdout)
	r.boolean("stderr", &o.Stderr)
	r.boolean("tty", &o.TTY)
	r.text("container", &o.Container)
	r.texts("command", &o.Command)
	if r.err != nil {
		return nil, r.err
	}
	return o, nil
}

// Attach reads PodAttachOptions. The error is a 400.
func Attach(values url.Values) (*corev1.PodAttachOptions, error) {
	r, o := reader{values: values}, &corev1.PodAttachOptions{}
	r.boolean("stdin", &o.Stdin)
	r.boolean("stdout", &o.Stdout)
	r.boolean("stderr", &o.Stderr)
	r.boolean("tty", &o.TTY)
	r.text("container", &o.Container)
	if r.err != nil {
		return nil, r.err
	}
	return o, nil
}

// PortForward reads PodPortForwardOptions. The error is a 400.
func PortForward(values url.Values) (*corev1.PodPortForwardOptions, error) {
	r, o := reader{values: values}, &corev1.PodPortForwardOptions{}
	r.of("ports", func(in []string) error { return metav1.Convert_Slice_string_To_Slice_int32(&in, &o.Ports, nil) })
	if r.err != nil {
		return nil, r.err
	}
	return o, nil
}

// logStreams are the values of PodLogOptions.Stream.
var logStreams = []string{corev1.LogStreamStdout, corev1.LogStreamStderr, corev1.LogStreamAll}

// CheckLog lists what is wrong with options. splitStreams says whether clients
// may ask for one stream (feature PodLogsQuerySplitStreams).
func CheckLog(o *corev1.PodLogOptions, splitStreams bool) field.ErrorList {
	var all field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		all = append(all, field.Invalid(field.NewPath("tailLines"), *o.TailLines, notNegative))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		all = append(all, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		all = append(all, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		all = append(all, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	if o.Stream == nil {
		return all
	}
	switch {
	case !splitStreams:
		all = append(all, field.Forbidden(field.NewPath("stream"), "may not be specified"))
	case *o.Stream != corev1.LogStreamStdout && *o.Stream != corev1.LogStreamStderr && *o.Stream != corev1.LogStreamAll:
		all = append(all, field.NotSupported(field.NewPath("stream"), *o.Stream, logStreams))
	case *o.Stream != corev1.LogStreamAll && o.TailLines != nil:
		all = append(all, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
	}
	return all
}

const notNegative = "must be greater than or equal to 0"

// KubeletLog writes the query of a kubelet's /containerLogs. The container is in
// its path, and whom to trust is between us and it.
func KubeletLog(o *corev1.PodLogOptions) url.Values {
	out := url.Values{}
	flag := func(name string, on bool) {
		if on {
			out.Set(name, "true")
		}
	}
	number := func(name string, value *int64) {
		if value != nil {
			out.Set(name, strconv.FormatInt(*value, 10))
		}
	}
	flag("follow", o.Follow)
	flag("previous", o.Previous)
	flag("timestamps", o.Timestamps)
	number("sinceSeconds", o.SinceSeconds)
	number("tailLines", o.TailLines)
	number("limitBytes", o.LimitBytes)
	if o.SinceTime != nil {
		out.Set("sinceTime", o.SinceTime.UTC().Format(time.RFC3339))
	}
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		out.Set("stream", *o.Stream)
	}
	return out
}

// KubeletExec writes the query of a kubelet's /exec.
func KubeletExec(o *corev1.PodExecOptions) url.Values {
	out := kubeletStreams(o.Stdin, o.Stdout, o.Stderr, o.TTY)
	for _, word := range o.Command {
		out.Add(corev1.ExecCommandParam, word)
	}
	return out
}

// KubeletAttach writes the query of a kubelet's /attach.
func KubeletAttach(o *corev1.PodAttachOptions) url.Values {
	return kubeletStreams(o.Stdin, o.Stdout, o.Stderr, o.TTY)
}

func kubeletStreams(stdin, stdout, stderr, tty bool) url.Values {
	out := url.Values{}
	for name, on := range map[string]bool{
		corev1.ExecStdinParam: stdin, corev1.ExecStdoutParam: stdout, corev1.ExecStderrParam: stderr, corev1.ExecTTYParam: tty,
	} {
		if on {
			out.Set(name, "1")
		}
	}
	return out
}

// KubeletPortForward writes the query of a kubelet's /portForward.
func KubeletPortForward(o *corev1.PodPortForwardOptions) url.Values {
	out := url.Values{}
	for _, port := range o.Ports {
		out.Add(corev1.PortHeader, fmt.Sprint(port))
	}
	return out
}
