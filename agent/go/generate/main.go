// Generate writes the Go code of the wire contract into ../afterglowv1 from the .proto files of this repository.
//
// It compiles them with protocompile, so nobody needs protoc or buf, and hands the result to the official plugins, which are pinned as
// tools in go.mod. `go generate ./...` in the SDK's folder runs it; the answer is the same on every machine.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"github.com/bufbuild/protocompile/protoutil"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const (
	// protoFolder holds the .proto files, seen from here.
	protoFolder = "../../../proto"
	// module is the import path of the SDK; generated files lie in a package under it.
	module = "github.com/afterglow-profiler/afterglow/agent/go"
	// goPackage is where the messages of afterglow.v1 go.
	goPackage = module + "/afterglowv1"
	// statusPackage has google.rpc.Status already.
	statusPackage = "google.golang.org/genproto/googleapis/rpc/status"
)

// files are those that a sender of profiles needs.
var files = []string{"afterglow/v1/types.proto", "afterglow/v1/ingest.proto"}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{protoFolder}}),
		// Comments of the contract become comments of the code.
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	compiled, err := compiler.Compile(ctx, files...)
	if err != nil {
		return err
	}
	parameters := []string{"module=" + module, "Mgoogle/rpc/status.proto=" + statusPackage}
	for _, file := range files {
		parameters = append(parameters, "M"+file+"="+goPackage)
	}
	request := &pluginpb.CodeGeneratorRequest{
		FileToGenerate: files,
		Parameter:      proto.String(strings.Join(parameters, ",")),
		ProtoFile:      withImports(compiled),
	}
	for _, plugin := range []string{"protoc-gen-go", "protoc-gen-go-grpc"} {
		if err := generate(ctx, plugin, request); err != nil {
			return fmt.Errorf("%s: %w", plugin, err)
		}
	}
	return nil
}

// withImports returns the descriptors of all files and what they import, imports first.
func withImports(compiled linker.Files) []*descriptorpb.FileDescriptorProto {
	var descriptors []*descriptorpb.FileDescriptorProto
	seen := map[string]bool{}
	var add func(protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		for i := range file.Imports().Len() {
			add(file.Imports().Get(i).FileDescriptor)
		}
		descriptors = append(descriptors, protoutil.ProtoFromFileDescriptor(file))
	}
	for _, file := range compiled {
		add(file)
	}
	return descriptors
}

// generate runs one plugin and writes the files it answers with.
func generate(ctx context.Context, plugin string, request *pluginpb.CodeGeneratorRequest) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.CommandContext(ctx, "go", "tool", plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(output, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	for _, file := range response.File {
		path := filepath.Join("..", filepath.FromSlash(file.GetName()))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
