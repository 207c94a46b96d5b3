// Generates ../afterglowv1 from the repository's proto files, without protoc: protocompile reads them, and Go's own plugins write
// the code.
//
//	cd agent/go && go generate ./...
//
// The plugins' versions are those of this module, so the same commit gives the same code.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"
)

const goPackage = "github.com/afterglow-profiler/afterglow/agent/go/afterglowv1"

// Only what the SDK speaks: it never asks questions.
var sources = []string{"afterglow/v1/types.proto", "afterglow/v1/ingest.proto"}

var plugins = []string{
	"google.golang.org/protobuf/cmd/protoc-gen-go",
	"google.golang.org/grpc/cmd/protoc-gen-go-grpc",
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: generate PROTO_FOLDER OUTPUT_FOLDER")
	}
	request, err := compile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for _, plugin := range plugins {
		if err := generate(plugin, request, os.Args[2]); err != nil {
			log.Fatalf("%s: %v", plugin, err)
		}
	}
}

// compile reads the sources and all they import, in the order that plugins want: what is imported comes first.
func compile(folder string) (*pluginpb.CodeGeneratorRequest, error) {
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{ImportPaths: []string{folder}}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), sources...)
	if err != nil {
		return nil, err
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: sources}
	parameter := "paths=import,module=" + goPackage
	for _, source := range sources {
		parameter += fmt.Sprintf(",M%s=%s", source, goPackage)
	}
	request.Parameter = &parameter
	seen := map[string]bool{}
	var add func(file protoreflect.FileDescriptor)
	add = func(file protoreflect.FileDescriptor) {
		if seen[file.Path()] {
			return
		}
		seen[file.Path()] = true
		imports := file.Imports()
		for i := range imports.Len() {
			add(imports.Get(i).FileDescriptor)
		}
		request.ProtoFile = append(request.ProtoFile, describe(file))
	}
	for _, file := range files {
		add(file)
	}
	return request, nil
}

func describe(file protoreflect.FileDescriptor) *descriptorpb.FileDescriptorProto {
	described := protodesc.ToFileDescriptorProto(file)
	if result, ok := file.(linker.Result); ok {
		described = result.FileDescriptorProto()
	}
	// The published google/rpc/status.proto names its Go package; ours leaves out what is not on the wire.
	if described.GetName() == "google/rpc/status.proto" {
		described = proto.Clone(described).(*descriptorpb.FileDescriptorProto)
		described.Options = &descriptorpb.FileOptions{
			GoPackage: proto.String("google.golang.org/genproto/googleapis/rpc/status"),
		}
	}
	return described
}

// generate runs one plugin and writes what it answers.
func generate(plugin string, request *pluginpb.CodeGeneratorRequest, output string) error {
	input, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	command := exec.Command("go", "run", plugin)
	command.Stdin = bytes.NewReader(input)
	command.Stderr = os.Stderr
	answer, err := command.Output()
	if err != nil {
		return err
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(answer, &response); err != nil {
		return err
	}
	if response.Error != nil {
		return fmt.Errorf("%s", response.GetError())
	}
	slices.SortFunc(response.File, func(a, b *pluginpb.CodeGeneratorResponse_File) int {
		return bytes.Compare([]byte(a.GetName()), []byte(b.GetName()))
	})
	for _, file := range response.File {
		path := filepath.Join(output, filepath.Base(file.GetName()))
		if err := os.WriteFile(path, []byte(file.GetContent()), 0o644); err != nil {
			return err
		}
	}
	return nil
}
