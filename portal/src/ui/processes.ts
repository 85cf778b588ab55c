// Turns the processes of an alert into the tree that they were.
import type { ProcessInfo } from '../api/types'

export interface TreeNode {
  id: string
  process: ProcessInfo
  level: number
  /** acting: it did it; above: an ancestor of it; beside: it took part. */
  part: 'acting' | 'above' | 'beside'
  children: TreeNode[]
}

const tick = 10_000_000n

/**
 * Names a process by boot, pid and the clock tick of its start. A start time
 * that was read from /proc (marked ~) is rounded to the tick, so exact and
 * rounded keys of one process get the same name.
 */
export function processId(key: string | undefined): string {
  const [boot, pid, start] = (key ?? '').split('/')
  if (!boot || !pid || !start) return ''
  try {
    return `${boot}/${pid}/${BigInt(start.replace('~', '')) / tick}`
  } catch {
    return ''
  }
}

/** The pid of a process key. */
export function pidOf(key: string | undefined): string {
  return (key ?? '').split('/')[1] ?? ''
}

/** The tree of an alert's processes: the acting one first, its ancestors, then the others. */
export function buildTree(list: ProcessInfo[]): TreeNode[] {
  const nodes = new Map<string, TreeNode>()
  list.forEach((process, i) => {
    const id = processId(process.key) || `#${i}`
    if (!nodes.has(id)) nodes.set(id, { id, process, level: 1, part: i === 0 ? 'acting' : 'beside', children: [] })
  })
  const acting = nodes.values().next().value
  const seen = new Set<TreeNode>()
  for (let at = acting && nodes.get(processId(acting.process.parent)); at && !seen.has(at); at = nodes.get(processId(at.process.parent))) {
    seen.add(at)
    if (at.part === 'beside') at.part = 'above'
  }
  const roots: TreeNode[] = []
  for (const node of nodes.values()) {
    const parent = nodes.get(processId(node.process.parent))
    if (parent && parent !== node) parent.children.push(node)
    else roots.push(node)
  }
  const began = (n: TreeNode) => Date.parse(n.process.started ?? '') || 0
  const order = (siblings: TreeNode[], level: number) => {
    siblings.sort((a, b) => began(a) - began(b))
    for (const node of siblings) {
      node.level = level
      order(node.children, level + 1)
    }
  }
  order(roots, 1)
  return roots
}

/** The rows to show, top down, without what is below a closed one. */
export function rowsOf(roots: TreeNode[], closed: ReadonlySet<string>): TreeNode[] {
  return roots.flatMap((node) => [node, ...(closed.has(node.id) ? [] : rowsOf(node.children, closed))])
}

const plain = /^[\w@%+=:,./-]+$/

/** Arguments as one would type them. */
export function commandLine(process: ProcessInfo | undefined): string {
  const args = process?.args ?? []
  if (args.length === 0) return process?.path ?? ''
  return args.map((a) => (plain.test(a) ? a : `'${a.replaceAll("'", "'\\''")}'`)).join(' ')
}
