package handlers

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// described shows an import in lines.
func described(i *Import) string {
	var b strings.Builder
	fmt.Fprintf(&b, "delimiter %q encoding %q header %t in order %t action %t\n", i.Delimiter, i.Encoding.Text, i.Header, i.InOrder, i.HasAction)
	for _, c := range i.Columns {
		fmt.Fprintf(&b, "%d%q=%s ", c.Position, c.Name, c.Column)
	}
	return b.String() + "\n" + written(i.Settings)
}

// vendorImport is a file as the vendor's reference describes it.
const vendorImport = `<?xml version="1.0" encoding="UTF-8"?>
<import-config xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <preProcess><unpackager><inputFilePath>a.zip</inputFilePath></unpackager></preProcess>
  <import>
    <providers><fileSystemSourceProvider>
      <skipFirstLine>no</skipFirstLine><columnsMapping><candidateLogin/></columnsMapping>
    </fileSystemSourceProvider></providers>
    <actions><createOrUpdateUserAction/></actions>
  </import>
  <import>
    <providers>
      <fileSystemSourceProvider>
        <fileName>tracking_*.csv</fileName>
        <path>imports/</path>
        <skipFirstLine>yes</skipFirstLine>
        <autoDetectLineEndings>yes</autoDetectLineEndings>
        <columnsMapping>
          <candidateLogin/>
          <ignoredColumn/>
          <lovCode/>
          <ignoredColumn/>
          <sessionGuid/>
          <trackingStatus><completed>c</completed></trackingStatus>
        </columnsMapping>
        <fileEncoding>ISO-8859-1</fileEncoding>
        <delimiter>pipe</delimiter>
        <dateFormat>YYYY-MM-DD</dateFormat>
        <sftpPassword>never shown</sftpPassword>
      </fileSystemSourceProvider>
    </providers>
    <actions>
      <createOrUpdateConsolidatedTrackingAction>
        <options><defaultScoreMax>20</defaultScoreMax></options>
      </createOrUpdateConsolidatedTrackingAction>
    </actions>
    <consolidators><moveToBackup><path>x</path></moveToBackup></consolidators>
  </import>
</import-config>
`

func TestParseImport(t *testing.T) {
	for _, c := range []struct {
		name   string
		action Action
		file   string
		want   string
	}{
		{"the vendor's own form, the second import of a file", Tracking, vendorImport,
			"delimiter \"|\" encoding \"ISO-8859-1\" header true in order true action true\n" +
				"1\"\"=candidateLogin 2\"\"= 3\"\"=lovCode 4\"\"= 5\"\"=sessionGuid 6\"\"=trackingStatus \n" +
				"33 defaultScoreMax=20\n23 trackingStatus= 23 completed:c\n"},
		{"beside the actions, by the first line's names", Tracking, `<import-config>
<delimiter>;</delimiter><columnsMapping><column name=" Login ">candidateLogin</column><column position="3">lovCode</column><column name="at">ignoredColumn</column></columnsMapping>
<actions><createOrUpdateConsolidatedTrackingAction/></actions></import-config>`,
			"delimiter \";\" encoding \"\" header true in order false action true\n0\"Login\"=candidateLogin 3\"\"=lovCode 0\"at\"=ignoredColumn \n"},
		{"no actions", Intervention, `<import-config><import><columnsMapping><interventionGuid/><roomGuid/></columnsMapping><skipFirstLine>No</skipFirstLine></import></import-config>`,
			"delimiter \";\" encoding \"\" header false in order true action false\n1\"\"=interventionGuid 2\"\"=roomGuid \n"},
		{"the file's form alone", Tracking, `<x><delimiter>Tabulation</delimiter></x>`,
			"delimiter \"\\t\" encoding \"\" header true in order false action false\n\n"},
		{"a delimiter that is a character", Tracking, `<x><delimiter>§</delimiter></x>`, "delimiter \"§\" encoding \"\" header true in order false action false\n\n"},
		{"a namespace", Tracking, `<v:x xmlns:v="urn:x"><v:delimiter>comma</v:delimiter><v:columnsMapping><v:column name="a">score</v:column></v:columnsMapping></v:x>`,
			"delimiter \",\" encoding \"\" header true in order false action false\n0\"a\"=score \n"},
		{"positions without a first line", Tracking, `<x><skipFirstLine>no</skipFirstLine><columnsMapping><column position="2">score</column><column position="1">lovCode</column></columnsMapping></x>`,
			"delimiter \";\" encoding \"\" header false in order false action false\n2\"\"=score 1\"\"=lovCode \n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseImport(c.action, []byte(c.file))
			if err != nil {
				t.Fatal(err)
			}
			if strings.TrimRight(described(got), "\n") != strings.TrimRight(c.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", described(got), c.want)
			}
			if _, err := Compile(c.action, got.Settings); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestParseImportFaults(t *testing.T) {
	const action = "<actions><createOrUpdateConsolidatedTrackingAction/></actions>"
	mapping := func(s string) string { return "<x>\n<columnsMapping>" + s + "</columnsMapping>" + action + "</x>" }
	for _, c := range []struct{ file, want string }{
		{"", "line 1: the file holds no element"},
		{"<x>\n<delimiter>", "line 2: within <delimiter> the file cannot be read: unexpected EOF"},
		{"<x>" + action + "</x>", "line 1: <x> holds no <columnsMapping>, <delimiter>, <fileEncoding> or <skipFirstLine>: settings alone are for --rules"},
		{"<x><delimiter>,</delimiter><actions><createOrUpdateInterventionAction/></actions></x>", "line 1: <x> holds no action <createOrUpdateConsolidatedTrackingAction>: is it the file of another action?"},
		{"<x><import><delimiter>,</delimiter></import>\n<import/></x>", "line 2: <import> is a second one, and no <actions> say which is meant: keep one"},
		{"<x>\n<delimiter>,</delimiter>\n<p><delimiter>,</delimiter></p></x>", "line 3: <p> is not known in <x>"},
		{"<x>\n<p><delimiter>,</delimiter></p>\n<q><delimiter>,</delimiter></q></x>", "line 3: <delimiter> is there twice, first on line 2: keep one"},
		{"<x><delimiter>,</delimiter>\n<skipFirstline>no</skipFirstline></x>", "line 2: <skipFirstline> is not known in <x>: <columnsMapping>, <delimiter>, <fileEncoding> and <skipFirstLine> describe a file"},
		{"<x><delimiter>,</delimiter><actions><createOrUpdateConsolidatedTrackingAction/>\n<createOrUpdateConsolidatedTrackingAction/></actions></x>", "line 2: <createOrUpdateConsolidatedTrackingAction> is there twice"},
		{"<x><delimiter>,</delimiter><actions><createOrUpdateConsolidatedTrackingAction>\n<columns/></createOrUpdateConsolidatedTrackingAction></actions></x>", "line 2: <columns> is not known in <createOrUpdateConsolidatedTrackingAction>"},
		// Scalars.
		{"<x>\n<delimiter>colon</delimiter></x>", "line 2: <delimiter> says [colon]: write comma, semicolon, pipe or tabulation, or the one character"},
		{"<x>\n<delimiter>\t</delimiter></x>", "line 2: <delimiter> says []: write comma"},
		{"<x>\n<delimiter>\"</delimiter></x>", "line 2: <delimiter> says [\"]"},
		{"<x><delimiter kind='a'>,</delimiter></x>", "line 1: <delimiter> has the attribute kind, which is not known"},
		{"<x><delimiter>,\n<a/></delimiter></x>", "line 2: <a> is not known in <delimiter>"},
		{"<x><skipFirstLine>1</skipFirstLine></x>", "line 1: <skipFirstLine> says [1]: write yes or no"},
		{"<x><skipFirstLine/></x>", "line 1: <skipFirstLine> says []: write yes or no"},
		{"<x>\n<skipFirstLine>no</skipFirstLine></x>", "line 2: <skipFirstLine> says no, and there is no <columnsMapping>: nothing names the columns of the file"},
		{"<x>\n<fileEncoding> </fileEncoding></x>", "line 2: <fileEncoding> is empty: write the file's encoding"},
		// The mapping.
		{mapping(""), "line 2: <columnsMapping> names no column: list the columns"},
		{mapping("<ignoredColumn/>"), "line 2: <columnsMapping> names no column of the action tracking"},
		{mapping(strings.Repeat("<ignoredColumn/>", 10_001)), "line 2: <columnsMapping> names 10001 columns: 10000 are read at most"},
		{mapping("text<score/>"), "line 2: <columnsMapping> holds the text [text]"},
		{mapping("<score/>\n<roomGuid/>"), "line 3: <roomGuid> names [roomGuid], which is no column of the action tracking: <ignoredColumn/> is for those"},
		{mapping("<score/>\n<score/>"), "line 3: <score> names [score] twice, first on line 2: keep one"},
		{mapping("<score/>\n<lovCode>3</lovCode>"), "line 3: <lovCode> holds the text [3]: a column stands where the file has it, or is written <column name=\"…\">lovCode</column> or <column position=\"…\">lovCode</column>"},
		{mapping("<score/>\n<lovCode at='3'/>"), "line 3: <lovCode> has the attribute at, which is not known"},
		{mapping("<score><max/></score>"), "line 2: <max> is not known in <score>"},
		{mapping("<score/>\n<column name='a'>lovCode</column>"), "line 3: <column> is not of the form that the mapping began with on line 2"},
		{mapping("<column name='a'>lovCode</column>\n<score/>"), "line 3: <score> is not of the form that the mapping began with on line 2"},
		{mapping("<trackingStatus><done>d</done></trackingStatus>"), "line 2: <done> is no status"},
		{"<x><columnsMapping>\n<trackingStatus><passed>d</passed></trackingStatus></columnsMapping></x>", "line 2: <trackingStatus> holds words, and there are no <actions>"},
		{"<x><columnsMapping><trackingStatus><passed>d</passed></trackingStatus></columnsMapping>\n<actions><createOrUpdateConsolidatedTrackingAction><parameters><trackingStatus/></parameters></createOrUpdateConsolidatedTrackingAction></actions></x>",
			"line 1: <trackingStatus> gives trackingStatus twice, first on line 2: keep one"},
		{mapping("<column>lovCode</column>"), "line 2: <column> needs a name or a position: one of them"},
		{mapping("<column name='a' position='1'>lovCode</column>"), "line 2: <column> needs a name or a position: one of them"},
		{mapping("<column name=' '>lovCode</column>"), "line 2: <column> has an empty name"},
		{mapping("<column title='a' name='b'>lovCode</column>"), "line 2: <column> has the attribute title, which is not known"},
		{mapping("<column position='0'>lovCode</column>"), "line 2: <column> has the position [0]: write a whole number, 1 to 10000"},
		{mapping("<column position='10001'>lovCode</column>"), "line 2: <column> has the position [10001]"},
		{mapping("<column position='+1'>lovCode</column>"), "line 2: <column> has the position [+1]"},
		{mapping("<column position='1'>lovCode</column>\n<column position='01'>score</column>"), "line 3: <column> maps the column of that position again, first on line 2: keep one"},
		{mapping("<column name='a'>lovCode</column>\n<column name=' a'>score</column>"), "line 3: <column> maps the column of that name again, first on line 2: keep one"},
		{mapping("<column name='a'>lovCode</column>\n<column name='b'>lovCode</column>"), "line 3: <column> names [lovCode] twice, first on line 2: keep one"},
		{mapping("<column name='a'>x</column>"), "line 2: <column> names [x], which is no column of the action tracking"},
		{mapping("<column name='a'/>"), "line 2: <column> names [], which is no column of the action tracking"},
		{mapping("<column name='a'>score<b/></column>"), "line 2: <b> is not known in <column>"},
		{"<x><skipFirstLine>no</skipFirstLine><columnsMapping>\n<column name='a'>score</column></columnsMapping></x>", "line 2: <column> has a name, and <skipFirstLine> says no"},
	} {
		t.Run(c.want, func(t *testing.T) {
			got, err := ParseImport(Tracking, []byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one fault: %v", err)
			}
		})
	}
	if _, err := ParseImport("enrolment", []byte(vendorImport)); err == nil {
		t.Error("an unknown action is read")
	}
	_, err := ParseImport(Tracking, []byte("<x><delimiter>ab</delimiter><skipFirstLine>x</skipFirstLine><columnsMapping><a/><b/></columnsMapping><actions><createOrUpdateConsolidatedTrackingAction><c/></createOrUpdateConsolidatedTrackingAction></actions></x>"))
	if err == nil || strings.Count(err.Error(), "\n") != 4 {
		t.Errorf("not every fault: %v", err)
	}
	_, err = ParseImport(Tracking, []byte(strings.Replace(vendorImport, "pipe", "pipes", 1)))
	if err == nil || strings.Contains(err.Error(), "never shown") {
		t.Error("a password is shown")
	}
}

func FuzzImport(f *testing.F) {
	f.Add(vendorImport)
	f.Add(`<x><delimiter>tab</delimiter><columnsMapping><column name="a">score</column><column position="2">lovCode</column></columnsMapping></x>`)
	f.Add(`<x><skipFirstLine>no</skipFirstLine><columnsMapping><interventionGuid/><ignoredColumn/><interventionStatus><active>on</active></interventionStatus></columnsMapping><actions><createOrUpdateInterventionAction/></actions></x>`)
	f.Add(`<x><import><fileEncoding>UTF-16</fileEncoding></import><import><actions><action name="createOrUpdateInterventionAction"/></actions></import></x>`)
	f.Fuzz(func(t *testing.T, file string) {
		for _, action := range []Action{Tracking, Intervention} {
			got, err := ParseImport(action, []byte(file))
			if err != nil {
				for line := range strings.SplitSeq(err.Error(), "\n") {
					if !strings.HasPrefix(line, "line ") && !strings.HasPrefix(line, "the file has ") {
						t.Fatalf("no line in %q", err)
					}
				}
				continue
			}
			if again, err := ParseImport(action, []byte(file)); err != nil || !reflect.DeepEqual(again, got) {
				t.Fatalf("%v, then %v", got, again)
			}
			if len([]rune(got.Delimiter)) != 1 || !got.Header && len(got.Columns) == 0 {
				t.Fatalf("%+v", got)
			}
			columns, wanted := map[string]bool{}, false
			for i, c := range got.Columns {
				if got.InOrder && (c.Position != i+1 || c.Name != "") || !got.InOrder && ((c.Name == "") == (c.Position == 0) || c.Name != "" && !got.Header) {
					t.Fatalf("%+v", c)
				}
				if c.Column == "" {
					continue
				}
				if _, ok := tableOf(action).find(c.Column); !ok || columns[c.Column] {
					t.Fatalf("%+v", c)
				}
				columns[c.Column], wanted = true, true
			}
			if len(got.Columns) > 0 && !wanted {
				t.Fatalf("%+v", got)
			}
			if !got.HasAction && got.Settings != nil {
				t.Fatalf("%+v", got)
			}
			if r, err := Compile(action, got.Settings); (r == nil) == (err == nil) {
				t.Fatal(r, err)
			}
		}
	})
}
