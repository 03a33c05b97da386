// Command crdlint judges a CustomResourceDefinition and objects of it with the API server's own code.
//
//	crdlint CRD.yaml < cases.jsonl > verdicts.jsonl
//
// The definition is checked first: structure, compilation of every rule, cost budget; its faults go to standard error
// and end the command with 1. Then every line of standard input, {"name", "object", "old"}, is judged as a create (no
// old) or an update, and answered with {"name", "errors": [{"field", "message"}]}.
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
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"
)

type testCase struct {
	Name   string         `json:"name"`
	Object map[string]any `json:"object"`
	Old    map[string]any `json:"old"`
}

type fault struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

type verdict struct {
	Name   string  `json:"name"`
	Errors []fault `json:"errors"`
}

// judge holds what the API server prepares once for a served version.
type judge struct {
	structural *structuralschema.Structural
	schema     schemavalidation.SchemaValidator
	rules      *cel.Validator
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
	definition, err := load(path)
	if err != nil {
		return err
	}
	if faults := crdvalidation.ValidateCustomResourceDefinition(context.Background(), definition); len(faults) > 0 {
		return faults.ToAggregate()
	}
	j, err := newJudge(definition)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 8<<20)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var c testCase
		if err := decode(lines.Bytes(), &c); err != nil {
			return fmt.Errorf("a case is no JSON object: %w", err)
		}
		if err := out.Encode(verdict{c.Name, j.judge(c)}); err != nil {
			return err
		}
	}
	return lines.Err()
}

func load(path string) (*apiextensions.CustomResourceDefinition, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var served apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(data, &served); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	install.Install(scheme)
	scheme.Default(&served)
	internal := &apiextensions.CustomResourceDefinition{}
	if err := scheme.Convert(&served, internal, nil); err != nil {
		return nil, err
	}
	// The storage strategy records the stored version when an object is created; validation asks for it.
	for _, version := range internal.Spec.Versions {
		if version.Storage {
			internal.Status.StoredVersions = []string{version.Name}
		}
	}
	return internal, nil
}

func newJudge(definition *apiextensions.CustomResourceDefinition) (*judge, error) {
	props := definition.Spec.Validation
	if props == nil {
		props = definition.Spec.Versions[0].Schema
	}
	structural, err := structuralschema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	schema, _, err := schemavalidation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	return &judge{structural, schema, cel.NewValidator(structural, true, celconfig.PerCallLimit)}, nil
}

// judge follows the order of the custom resource's create and update strategies, with fieldValidation=Strict.
func (j *judge) judge(c testCase) []fault {
	faults := []fault{}
	pruned := pruning.PruneWithOptions(c.Object, j.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range pruned {
		faults = append(faults, fault{path, "unknown field"})
	}
	var errs field.ErrorList
	var old any
	if c.Old == nil {
		errs = schemavalidation.ValidateCustomResource(nil, c.Object, j.schema)
	} else {
		errs = schemavalidation.ValidateCustomResourceUpdate(nil, c.Object, c.Old, j.schema)
		old = c.Old
	}
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, j.structural, c.Object)...)
	if !blocksRules(errs) {
		found, _ := j.rules.Validate(context.Background(), nil, j.structural, c.Object, old, celconfig.RuntimeCELCostBudget)
		errs = append(errs, found...)
	}
	for _, err := range errs {
		faults = append(faults, fault{err.Field, err.ErrorBody()})
	}
	return faults
}

// blocksRules tells whether the API server leaves the rules unevaluated: after faults of form, not of value.
func blocksRules(errs field.ErrorList) bool {
	for _, err := range errs {
		switch err.Type {
		case field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid:
			return true
		}
	}
	return false
}

// decode reads numbers as the API server does: whole ones as int64, others as float64.
func decode(line []byte, into *testCase) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		return err
	}
	if err := json.Unmarshal(raw["name"], &into.Name); err != nil {
		return err
	}
	for key, target := range map[string]*map[string]any{"object": &into.Object, "old": &into.Old} {
		if data, ok := raw[key]; ok && string(data) != "null" {
			if err := utiljson.Unmarshal(data, target); err != nil {
				return err
			}
		}
	}
	return nil
}
