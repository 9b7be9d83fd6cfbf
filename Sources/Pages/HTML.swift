import Faults
import Foundation
import Quoting

/// What all pages share: they need nothing else, no outside file, and look right in light and dark, and on paper.
enum HTML {
  static func escaped(_ text: String) -> String {
    HTMLText.escaped(text)
  }

  /// A command to be pasted, or words.
  static func hint(_ text: String) -> String {
    Hint.isCommand(text) ? "<code class=\"next\">\(escaped(text))</code>" : escaped(text)
  }

  static func number(_ value: Double) -> String { String(format: "%.1f", value) }

  /// `2,800,000`.
  static func grouped(_ number: Int64) -> String {
    let digits = Array("\(number.magnitude)")
    var text = ""
    for (position, digit) in digits.enumerated() {
      if position > 0, (digits.count - position) % 3 == 0 { text.append(",") }
      text.append(digit)
    }
    return number < 0 ? "-" + text : text
  }

  static func plural(_ count: Int, _ word: String) -> String { "\(count) \(word)\(count == 1 ? "" : "s")" }

  /// A table that scrolls by itself where it is wider than the screen. Cells are escaped here, or are pieces of HTML already.
  static func table(_ head: [String], _ rows: [[Cell]], label: String) -> String {
    if rows.isEmpty { return "<p>None.</p>" }
    let id = "t-" + label.filter { $0.isASCII && ($0.isLetter || $0.isNumber) }
    let body = rows.map { row in
      "<tr>"
        + row.enumerated().map { position, cell in
          let state = cell.state.map { " class=\"\($0)\"" } ?? ""
          return position == 0 ? "<th scope=\"row\"\(state)>\(cell.html)</th>" : "<td\(state)>\(cell.html)</td>"
        }.joined() + "</tr>"
    }
    // A region that scrolls has to be reachable by keyboard.
    return
      "<div class=\"wide\" id=\"\(id)\" role=\"region\" tabindex=\"0\" aria-label=\"\(escaped(label))\"><table><thead><tr>"
      + head.map { "<th scope=\"col\">\($0)</th>" }.joined()
      + "</tr></thead><tbody>\(body.joined(separator: "\n"))</tbody></table></div>"
  }

  struct Cell {
    var html: String
    /// A class.
    var state: String?

    init(_ text: String, _ state: String? = nil) {
      html = HTML.escaped(text)
      self.state = state
    }

    init(html: String) { self.html = html }
  }

  static let style = """
    :root { color-scheme: light dark; --ink: #1b2733; --soft: #56677a; --line: #d5dce4; --ground: #ffffff; --card: #f4f6f9;
      --good: #1a7f4b; --bad: #b3261e; --mark: #2364aa; --unread: #b9c3ce }
    @media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9fb0c1; --line: #33404d; --ground: #10161c;
      --card: #1a232c; --good: #5fcf94; --bad: #ff8a80; --mark: #7db7f0; --unread: #4b5a68 } }
    * { box-sizing: border-box }
    body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); margin: 0 auto; max-width: 70rem;
      padding: 1.5rem }
    h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem; overflow-wrap: anywhere } p { margin: .3rem 0 }
    header p { color: var(--soft) }
    .verdict { border-left: 4px solid; padding: .5rem .9rem; margin-top: 1rem; background: var(--card) }
    .verdict.good { border-color: var(--good) } .verdict.bad { border-color: var(--bad); color: var(--ink) }
    .cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 0 }
    .card { background: var(--card); padding: .7rem .9rem; border-top: 3px solid var(--line); border-radius: 4px }
    .card.good { border-color: var(--good) } .card.bad { border-color: var(--bad) }
    dt { color: var(--soft); font-size: .85rem } dd { margin: 0; font-size: 1.15rem; font-weight: 600 }
    dd.state { font-size: .85rem; font-weight: 400 } .good .state { color: var(--good) } .bad .state { color: var(--bad) }
    .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .8rem; margin: .8rem 0 }
    figure { margin: 0; background: var(--card); padding: .6rem; border-radius: 4px } figcaption { font-size: .85rem; color: var(--soft) }
    svg { display: block; max-width: 100% } .curve { fill: none; stroke: var(--mark); stroke-width: 1.6 } .dot { fill: var(--mark) }
    .axis { stroke: var(--line) } svg text { fill: var(--soft); font-size: 10px }
    .sound { fill: var(--good) } .unread { fill: var(--unread) } .damaged { fill: var(--bad) }
    .wide { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .88rem }
    th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); font-weight: 400; white-space: nowrap }
    thead th { color: var(--soft); font-size: .8rem } td.open { color: var(--bad) } code { font-size: .9em }
    @media print { body { max-width: none; padding: 0 } section { break-inside: avoid-page } }
    """

  /// What only the status page has.
  static let statusStyle = """

    :root { --close: #8a5a00 }
    @media (prefers-color-scheme: dark) { :root { --close: #e8b34b } }
    .skip { position: absolute; left: -100rem } .skip:focus { left: 1rem; top: .5rem; background: var(--card); padding: .4rem .8rem }
    a { color: var(--mark) } :focus-visible { outline: 3px solid var(--mark); outline-offset: 2px }
    .soft { color: var(--soft); font-weight: 400; font-size: .85rem } .ok { color: var(--good) } .open { color: var(--bad) }
    #live { color: var(--bad); font-weight: 600 } .verdict h2 { margin: 0 } .verdict ul { margin: .3rem 0; padding-left: 1.2rem }
    .verdict li { margin: .35rem 0; overflow-wrap: anywhere } .next { user-select: all }
    .gauges { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem }
    .gauge { border-top: 3px solid var(--line); border-radius: 4px } .gauge.good { border-color: var(--good) }
    .gauge.bad { border-color: var(--bad) } .gauge.close { border-color: var(--close) }
    .gauge svg { margin: 0 auto } .rail { fill: none; stroke: var(--line); stroke-width: 9; stroke-linecap: round }
    .arc { fill: none; stroke: var(--mark); stroke-width: 9; stroke-linecap: round } .good .arc { stroke: var(--good) }
    .bad .arc { stroke: var(--bad) } .close .arc { stroke: var(--close) }
    .gauge .figure { fill: var(--ink); font-size: 17px; font-weight: 600 }
    .gauge p { text-align: center; margin: 0 } .gauge .state { font-size: .85rem; color: var(--soft) }
    .gauge.good .state { color: var(--good) } .gauge.bad .state { color: var(--bad) } .gauge.close .state { color: var(--close) }
    .facts { margin: 0 } .facts dd { font-size: .95rem; font-weight: 400; margin-bottom: .35rem }
    details { margin: .8rem 0 } summary { cursor: pointer; color: var(--soft); font-size: .9rem }
    @media (max-width: 48rem) { .late { direction: rtl; text-align: left } .late > * { direction: ltr } }
    .calendar { margin-top: .5rem; max-width: none } .none { fill: var(--line) } .mixed { fill: var(--close) }
    .bar { stroke: var(--ground); stroke-width: 1.6 } .taken { fill: var(--mark) }
    .legend { font-size: .8rem; color: var(--soft) } .key::before { content: ""; display: inline-block; width: .7rem; height: .7rem;
      border-radius: 2px; margin: 0 .3rem 0 .6rem; background: var(--line) }
    .legend .key { color: var(--soft); white-space: nowrap; display: inline-block } .key.ok::before { background: var(--good) } .key.open::before { background: var(--bad) }
    .key.mixed::before { background: var(--close) } .runs { padding-left: 1.2rem } .runs progress { vertical-align: middle }
    td.wrap { white-space: normal; min-width: 16rem }
    @media (max-width: 30rem) { body { padding: .8rem } .gauges { grid-template-columns: 1fr 1fr } }
    @media (prefers-reduced-motion: no-preference) { .arc { transition: stroke-dasharray .4s } }

    """
}
