// One escaper for each context, over UTF-8 bytes. No other target quotes.
//
// Why bytes: Swift's `replacing`, `split`, `contains` and `hasPrefix` compare Characters. In them `'` behind U+0600
// (Prepend) or before U+0301 (Extend) is no `'`, and CR LF is no LF. A name that its owner chose so would leave its
// quotes. PostgreSQL, shells and parsers compare bytes, and so does this target.
//
//   context                      type                    a zero byte
//   SQL identifier               SQLName                 becomes U+FFFD: the server then knows no such name
//   SQL string constant          SQLName.literal         becomes U+FFFD
//   SQL text, read               SQLTokens, SQLText      is an ordinary byte
//   libpq keyword value          ConnectionValue         becomes U+FFFD
//   pgpass field                 PasswordFileField       is refused, as are CR and LF: the format has no way to hold them
//   postgresql.conf value        ServerFileValue         becomes U+FFFD
//   shell word                   ShellWord               becomes U+FFFD: no argument can hold it
//   terminal, status, RECOVER    TerminalText            is shown as \x00
//   log line and field           LogText                 is shown as \x00
//   HTML text and attribute      HTMLText                is shown as \x00
//   JSON string                  JSONText                is \u0000
//   CSV field                    CSVField                is an ordinary byte
//   OpenMetrics label and help   MetricsLabel            becomes U+FFFD
//   monitoring plugin            PluginText              is shown as \x00
//   Markdown cell                MarkdownText            is shown as \x00
//   chat messages                SlackText, DiscordText  is shown as \x00
//
// What every function promises:
// - The result, put where its doc comment says, is read back there as the text that went in (or as its visible form).
// - No text ends its quotes, its line, its cell or its tag.
// - Work and memory are linear in the text's length.
