// Command crdlint validates a CustomResourceDefinition and objects of it with the API server's own code.
//
//	crdlint CRD.yaml < cases.jsonl > verdicts.jsonl
//
// It validates the definition first: structure, compilation of every rule, cost budget. Faults are printed to standard error,
// and the exit code is 1. Then it validates every line of standard input, {"name", "object", "old", "subresource"}, as a
// create (no old), an update, or an update of status (subresource "status"), and prints
// {"name", "errors": [{"field", "type", "message"}]}.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/install"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apiextensions-apiserver/pkg/crdserverscheme"
	"k8s.io/apiextensions-apiserver/pkg/registry/customresource"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/yaml"
)

type testCase struct {
	Name        string
	Object, Old map[string]any
	Subresource string
}

type fault struct {
	Field   string `json:"field"`
	Type    string `json:"type"`
	Message string `json:"message"`
}

type verdict struct {
	Name   string  `json:"name"`
	Errors []fault `json:"errors"`
}

// validator has what the API server prepares once for a served version.
type validator struct {
	structural   *structuralschema.Structural
	main, status rest.RESTUpdateStrategy
	create       rest.RESTCreateStrategy
	namespaced   bool
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: crdlint CRD.yaml < cases.jsonl")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "crdlint:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	served, err := load(path)
	if err != nil {
		return err
	}
	v, err := newValidator(served)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 8<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		c, err := decode(lines.Bytes())
		if err != nil {
			return fmt.Errorf("a case is not a JSON object: %w", err)
		}
		if err := out.Encode(verdict{c.Name, v.validate(c)}); err != nil {
			return err
		}
	}
	return lines.Err()
}

// load reads a definition and validates it like the API server when it is created.
func load(path string) (*apiextensionsv1.CustomResourceDefinition, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	served := &apiextensionsv1.CustomResourceDefinition{}
	if err := yaml.UnmarshalStrict(data, served); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	scheme.Default(served)
	internal := &apiextensions.CustomResourceDefinition{}
	if err := scheme.Convert(served, internal, nil); err != nil {
		return nil, err
	}
	// The storage strategy records the stored version when an object is created; validation reads it.
	for _, version := range internal.Spec.Versions {
		if version.Storage {
			internal.Status.StoredVersions = []string{version.Name}
		}
	}
	if faults := crdvalidation.ValidateCustomResourceDefinition(context.Background(), internal); len(faults) > 0 {
		return nil, faults.ToAggregate()
	}
	return served, nil
}

func newValidator(definition *apiextensionsv1.CustomResourceDefinition) (*validator, error) {
	version := definition.Spec.Versions[0]
	internal := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(version.Schema, internal, nil); err != nil {
		return nil, err
	}
	structural, err := structuralschema.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	whole, _, err := schemavalidation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	statusSchema := internal.OpenAPIV3Schema.Properties["status"]
	status, _, err := schemavalidation.NewSchemaValidator(&statusSchema)
	if err != nil {
		return nil, err
	}
	kind := schema.GroupVersionKind{Group: definition.Spec.Group, Version: version.Name, Kind: definition.Spec.Names.Kind}
	namespaced := definition.Spec.Scope == apiextensionsv1.NamespaceScoped
	strategy := customresource.NewStrategy(
		crdserverscheme.NewUnstructuredObjectTyper(), namespaced, kind, whole, status, structural,
		&apiextensions.CustomResourceSubresourceStatus{}, nil, nil,
	)
	return &validator{structural, strategy, customresource.NewStatusStrategy(strategy), strategy, namespaced}, nil
}

// validate decodes with fieldValidation=Strict, and then runs the strategies of the custom resource.
func (v *validator) validate(c testCase) []fault {
	faults := []fault{}
	object, unknown, err := v.admit(c.Object)
	if err != nil {
		return append(faults, fault{"", "BadRequest", err.Error()})
	}
	for _, path := range unknown {
		faults = append(faults, fault{path, "UnknownField", "unknown field"})
	}
	var errs field.ErrorList
	if c.Old == nil {
		if object.GetName() == "" && object.GetGenerateName() != "" { // as rest.BeforeCreate does
			object.SetName(names.SimpleNameGenerator.GenerateName(object.GetGenerateName()))
		}
		v.create.PrepareForCreate(context.Background(), object)
		errs = v.create.Validate(context.Background(), object)
	} else {
		old, _, err := v.admit(c.Old)
		if err != nil {
			return append(faults, fault{"", "BadRequest", err.Error()})
		}
		strategy := v.main
		if c.Subresource == "status" {
			strategy = v.status
		}
		// The API server sets both on every stored object, and a patch keeps them.
		for _, o := range []*unstructured.Unstructured{old, object} {
			o.SetResourceVersion("1")
			o.SetGeneration(1)
		}
		strategy.PrepareForUpdate(context.Background(), object, old)
		errs = strategy.ValidateUpdate(context.Background(), object, old)
	}
	for _, err := range errs {
		faults = append(faults, fault{err.Field, string(err.Type), err.ErrorBody()})
	}
	return faults
}

// admit decodes an object like the API server: typed metadata, without unknown fields and nulls.
func (v *validator) admit(content map[string]any) (*unstructured.Unstructured, []string, error) {
	meta, found, unknown, err := objectmeta.GetObjectMetaWithOptions(content, objectmeta.ObjectMetaOptions{ReturnUnknownFieldPaths: true})
	if err != nil {
		return nil, nil, err
	}
	options := structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}
	unknown = append(unknown, pruning.PruneWithOptions(content, v.structural, true, options)...)
	defaulting.PruneNonNullableNullsWithoutDefaults(content, v.structural)
	object := &unstructured.Unstructured{Object: content}
	if found {
		if err := objectmeta.SetObjectMeta(content, meta); err != nil {
			return nil, nil, err
		}
	}
	// The namespace of the request's path.
	if v.namespaced && object.GetNamespace() == "" {
		object.SetNamespace("default")
	}
	return object, unknown, nil
}

// decode reads numbers like the API server: integers as int64, others as float64.
func decode(line []byte) (c testCase, err error) {
	var raw map[string]any
	if err := utiljson.Unmarshal(line, &raw); err != nil {
		return c, err
	}
	c.Name, _ = raw["name"].(string)
	c.Object, _ = raw["object"].(map[string]any)
	c.Old, _ = raw["old"].(map[string]any)
	c.Subresource, _ = raw["subresource"].(string)
	if c.Object == nil {
		return c, fmt.Errorf("%s has no object", c.Name)
	}
	return c, nil
}
