package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"learnsink/test/kafkaserver"
)

//go:embed debezium.pom.xml
var debeziumPOM []byte

//go:embed debezium.log4j2.xml
var debeziumLog4j []byte

//go:embed debezium.schema.json
var debeziumSchema string

//go:embed debezium.worker.properties
var debeziumWorker string

//go:embed debezium.sink.properties
var debeziumSink string

// connectDebezium starts Kafka Connect with Debezium's JDBC sink, with the
// settings that were its best of those tried.
func (b *bench) connectDebezium(ctx context.Context, topic, database string, _ set) (*child, error) {
	jars, err := kafkaserver.Jars(ctx, "debezium", debeziumPOM, say)
	if err != nil {
		return nil, fmt.Errorf("the jars of Debezium: %w", err)
	}
	ports, err := kafkaserver.FreePorts(1)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(database)
	if err != nil {
		return nil, err
	}
	b.runs++
	dir := filepath.Join(b.dir, fmt.Sprintf("debezium-%d", b.runs))
	password, _ := u.User.Password()
	values := map[string]any{"Brokers": b.brokers, "Port": ports[0], "Dir": dir, "Schema": strings.TrimSpace(debeziumSchema), "Name": fmt.Sprintf("bench-%d-%d", os.Getpid(), b.runs),
		"Topic": topic, "URL": "jdbc:postgresql://" + u.Host + u.Path, "User": u.User.Username(), "Password": password}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	write := func(name, text string) error {
		var out bytes.Buffer
		return errors.Join(template.Must(template.New("").Parse(text)).Execute(&out, values), os.WriteFile(filepath.Join(dir, name), out.Bytes(), 0o600))
	}
	if err := errors.Join(write("worker.properties", debeziumWorker), write("sink.properties", debeziumSink),
		os.WriteFile(filepath.Join(dir, "log4j2.xml"), debeziumLog4j, 0o644)); err != nil {
		return nil, err
	}
	c := &child{log: filepath.Join(dir, "log")}
	c.cmd = exec.Command("java", "-Xms1g", "-Xmx2g", "-XX:+UseG1GC", "-cp", jars+"/*", "-Dlog4j2.configurationFile="+filepath.Join(dir, "log4j2.xml"),
		"org.apache.kafka.connect.cli.ConnectStandalone", filepath.Join(dir, "worker.properties"), filepath.Join(dir, "sink.properties"))
	return c, b.spawn(c)
}
