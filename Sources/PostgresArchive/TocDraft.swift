/// An entry of the table of contents while its fields arrive (`ReadToc` of pg_backup_archiver.c): each is read once.
struct TocDraft {
  /// In the order of the file.
  private enum Field: Int {
    case dumpID, hasData, catalogTable, catalogOID, tag, kind, section, definition, dropStatement, copyStatement
    case schema, tablespace, accessMethod, relationKind, owner, withOIDs, dependencies, offsetState, offset
  }

  private var next = Field.dumpID
  private var dumpID = 0
  private var hasData = false
  private var section = 0
  private var texts: [Field: String] = [:]
  private var dependencies: [Int] = []
  private var isRepaired = false

  /// Reads the next field. Returns the entry after its last one.
  mutating func readField(_ reader: inout PrimitiveReader, limit: Int) throws(ReadInterruption) -> TocEntry? {
    let start = reader.position
    switch next {
    case .dumpID:
      dumpID = try reader.integer()
      guard dumpID > 0 else { throw reader.invalid(.malformed("dump id \(dumpID)"), at: start) }
    case .hasData: hasData = try reader.integer() != 0
    case .section: section = try reader.integer()
    case .relationKind: if reader.hasRelationKinds { _ = try reader.integer() }
    case .dependencies:
      // One at a time, up to a NULL.
      if let text = try reader.string(limit: limit) {
        guard let id = Int(text) else {
          throw reader.invalid(.malformed("dependency '\(text.prefix(20))' is no number"), at: reader.position)
        }
        dependencies.append(id)
        return nil
      }
    case .offsetState:
      let state = try reader.byte()
      guard (1...3).contains(state) else { throw reader.invalid(.malformed("offset state \(state)"), at: start) }
      // K_OFFSET_NO_DATA
      if state == 3 { hasData = false }
    case .offset:
      _ = try reader.raw(reader.offsetSize)
      return entry
    default:
      texts[next] = try reader.string(limit: limit)
      isRepaired = isRepaired || reader.hasRepaired
    }
    next = Field(rawValue: next.rawValue + 1) ?? .offset
    return nil
  }

  private var entry: TocEntry {
    TocEntry(
      dumpID: dumpID, hasData: hasData, catalogTable: texts[.catalogTable], catalogOID: texts[.catalogOID],
      tag: texts[.tag], kind: texts[.kind], section: TocEntry.Section(rawValue: section) ?? .none,
      definition: texts[.definition], copyStatement: texts[.copyStatement], schema: texts[.schema],
      tablespace: texts[.tablespace], owner: texts[.owner], dependencies: dependencies, isRepaired: isRepaired)
  }
}
