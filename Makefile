# Timonel: the commands of a working day. `make help` lists them.
export CGO_ENABLED ?= 0

KUBECTL_VERSION = 1.37.2
GOFLAGS_BUILD  = -ldflags "-s -w"
SOURCES        = $(shell git ls-files '*.go' 2>/dev/null | grep -v '^tools/') go.mod go.sum
PACKAGES       = ./...

.PHONY: help
help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: bin/timonel bin/demo.tar ## build bin/timonel and the demo image

.PHONY: up
up: build packages bin/kubectl ## build, then start the whole cluster on this machine
	@PATH="$(CURDIR)/bin:$$PATH" bin/timonel up --demo-image bin/demo.tar $(ARGS)

bin/timonel: $(SOURCES)
	@echo "building bin/timonel"
	@go build $(GOFLAGS_BUILD) -o $@ ./cmd/timonel

bin/demo: $(shell git ls-files demo 2>/dev/null)
	@go build $(GOFLAGS_BUILD) -o $@ ./demo

bin/demo.tar: bin/demo $(shell git ls-files tools/demoimage 2>/dev/null)
	@cd tools && go run ./demoimage -program ../bin/demo -out ../bin/demo.tar

bin/kubectl: tools/kubectl/main.go tools/kubectl/go.mod
	@echo "building bin/kubectl $(KUBECTL_VERSION) (the unmodified one)"
	@cd tools/kubectl && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v$(KUBECTL_VERSION) -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37" -o ../../bin/kubectl .

bin/kubectl-1.35: tools/kubectl-1.35/main.go tools/kubectl-1.35/go.mod
	@echo "building bin/kubectl-1.35"
	@cd tools/kubectl-1.35 && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.35.0 -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=35" -o ../../bin/kubectl-1.35 .

.PHONY: packages
packages: ## install what the node needs: containerd, runc, CNI plugins (Debian)
	@sh scripts/packages

.PHONY: check
check: ## what can be checked in a minute: format, vet, unit tests
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt would change:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	@go vet $(PACKAGES)
	@go test -short $(PACKAGES)

.PHONY: test
test: packages build bin/kubectl bin/kubectl-1.35 ## everything that CI runs
	@sh scripts/test

.PHONY: lint
lint: ## staticcheck
	@go tool -modfile=tools/go.mod staticcheck $(PACKAGES)

.PHONY: kubectl
kubectl: build bin/kubectl bin/kubectl-1.35 packages ## run the kubectl stories, or some: make kubectl STORY='apply|scale'
	@go test -count=1 -tags stories ./test/kubectl $(if $(STORY),-run 'TestStories/($(STORY))')

.PHONY: corpus
corpus: build ## replay the recorded corpus, or an area: make corpus AREA=verbs
	@go test -count=1 -v -tags corpus ./test/corpus $(if $(AREA),-args -area $(AREA))

.PHONY: robust
robust: build ## random clients against servers and an etcd that are killed and paused: make robust SEED=7 DURATION=10m
	@cd test/robust && go test -count=1 -v -timeout 0 -run TestRobust . -args -duration $(or $(DURATION),5m) -servers $(or $(SERVERS),3) $(if $(SEED),-seed $(SEED))

.PHONY: load
load: build ## thousands of watches and many full lists of many pods under a memory limit: make load ARGS="-pods 10000"
	@cd test/load && go test -count=1 -v -timeout 0 -tags load . $(if $(ARGS),-args $(ARGS))

.PHONY: h2spec
h2spec: build ## a client that breaks the rules of HTTP/2
	@sh scripts/h2spec $(ARGS)

.PHONY: bench
bench: build ## the fixed workloads, CPU per operation
	@sh scripts/bench $(ARGS)

.PHONY: clean
clean: ## remove what was built
	@rm -rf bin
