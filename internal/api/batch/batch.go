// Package batch holds the kinds of the group batch: Job, which runs pods to their end, and CronJob, which makes
// Jobs on a schedule.
//
// Promises: every function is pure. Pod templates are checked in podspec.
// Start reading at job.go, then job_validate.go.
package batch

import (
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	batchv1 "k8s.io/api/batch/v1"
)

const group = batchv1.GroupName

// Definitions lists the kinds of the group in alphabetical order, as discovery does.
func Definitions(rules podspec.Rules) []*kind.Definition {
	return []*kind.Definition{cronJob(rules), job(rules)}
}
