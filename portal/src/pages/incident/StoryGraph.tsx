// The graph of an incident. It is loaded when somebody looks at one.
import '@xyflow/react/dist/base.css'
import { makeStyles, mergeClasses, tokens } from '@fluentui/react-components'
import { AlertRegular } from '@fluentui/react-icons/svg/alert'
import { DesktopRegular } from '@fluentui/react-icons/svg/desktop'
import { DocumentRegular } from '@fluentui/react-icons/svg/document'
import { GlobeRegular } from '@fluentui/react-icons/svg/globe'
import { PersonRegular } from '@fluentui/react-icons/svg/person'
import { WindowConsoleRegular } from '@fluentui/react-icons/svg/window-console'
import { Background, Controls, Handle, MarkerType, Position, ReactFlow, type Edge, type Node, type NodeProps } from '@xyflow/react'
import { useLayoutEffect, useMemo, useRef, useState, type ReactNode } from 'react'
import { useTranslation } from 'react-i18next'
import type { Graph, GraphNode } from '../../api/incidents'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { nodeHeight, nodeWidth, place, type Direction, type Placed } from './layout'

const useStyles = makeStyles({
  frame: {
    height: '100%', minHeight: '420px', border: `1px solid ${tokens.colorNeutralStroke2}`, borderRadius: tokens.borderRadiusMedium, overflow: 'hidden', backgroundColor: tokens.colorNeutralBackground2,
    '& .react-flow__edge-path': { stroke: tokens.colorNeutralStroke1Hover, strokeWidth: 1.5 },
    '& .react-flow__edge-text': { fill: tokens.colorNeutralForeground2, fontSize: '11px' },
    '& .react-flow__edge-textbg': { fill: tokens.colorNeutralBackground2 },
    '& .react-flow__arrowhead polyline': { stroke: tokens.colorNeutralStroke1Hover, fill: tokens.colorNeutralStroke1Hover },
    '& .react-flow__handle': { opacity: 0 },
    '& .react-flow__node:focus-visible': { outline: `2px solid ${tokens.colorStrokeFocus2}`, borderRadius: tokens.borderRadiusMedium },
    '& .react-flow__controls': { boxShadow: tokens.shadow4 },
    '& .react-flow__controls-button': { backgroundColor: tokens.colorNeutralBackground1, color: tokens.colorNeutralForeground1, border: 0, width: '28px', height: '28px' },
    '& .react-flow__controls-button svg': { fill: 'currentColor', maxWidth: '12px', maxHeight: '12px' },
    '& .react-flow__background': { '--xy-background-pattern-color': tokens.colorNeutralStroke2 },
  },
  node: {
    boxSizing: 'border-box', width: `${nodeWidth}px`, height: `${nodeHeight}px`, display: 'grid', gridTemplateColumns: '28px minmax(0, 1fr)', alignItems: 'center', gap: tokens.spacingHorizontalS,
    padding: '0 10px', backgroundColor: tokens.colorNeutralBackground1, border: `1px solid ${tokens.colorNeutralStroke1}`, borderRadius: tokens.borderRadiusMedium, textAlign: 'left', color: tokens.colorNeutralForeground1,
  },
  selected: { outline: `2px solid ${tokens.colorCompoundBrandStroke}`, outlineOffset: '1px' },
  faded: { opacity: 0.35 },
  icon: { fontSize: '22px', display: 'flex', color: tokens.colorNeutralForeground2 },
  high: { borderLeft: `4px solid ${tokens.colorPaletteRedBackground3}` },
  medium: { borderLeft: `4px solid ${tokens.colorPaletteDarkOrangeBackground3}` },
  low: { borderLeft: `4px solid ${tokens.colorPaletteMarigoldBackground3}` },
  informational: { borderLeft: `4px solid ${tokens.colorPaletteBlueBorderActive}` },
  label: { overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap', fontWeight: tokens.fontWeightSemibold, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase200 },
  kind: { color: tokens.colorNeutralForeground3, fontSize: tokens.fontSizeBase100, lineHeight: tokens.lineHeightBase100, overflow: 'hidden', textOverflow: 'ellipsis', whiteSpace: 'nowrap' },
})

const icons: Record<string, ReactNode> = {
  device: <DesktopRegular />, process: <WindowConsoleRegular />, file: <DocumentRegular />, user: <PersonRegular />, address: <GlobeRegular />, alert: <AlertRegular />,
}

type Shown = Node<{ node: Placed; selected: boolean; faded: boolean; direction: Direction }, 'entity'>

function Entity({ data: { node, selected, faded, direction } }: NodeProps<Shown>) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  const edge = { High: styles.high, Medium: styles.medium, Low: styles.low, Informational: styles.informational }[node.severity ?? '']
  const label = node.members ? node.id.startsWith('chain:') ? t('graph.chain', { count: node.members.length, number: format.number(node.members.length) }) : t('graph.group', { count: node.members.length, number: format.number(node.members.length) }) : node.kind === 'alert' ? title(node.label) : node.label
  return (
    <div className={mergeClasses(styles.node, edge, selected && styles.selected, faded && styles.faded)} title={label} data-testid="graph-node" data-kind={node.kind}>
      <Handle type="target" position={direction === 'LR' ? Position.Left : Position.Top} isConnectable={false} />
      <span className={styles.icon} aria-hidden>{icons[node.kind] ?? icons.file}</span>
      <span style={{ minWidth: 0 }}>
        <div className={styles.label}>{label}</div>
        <div className={styles.kind}>{name('nodeKind', node.kind)}</div>
      </span>
      <Handle type="source" position={direction === 'LR' ? Position.Right : Position.Bottom} isConnectable={false} />
    </div>
  )
}

const nodeTypes = { entity: Entity }

interface Props {
  graph: Graph
  selected: string
  select: (node: GraphNode) => void
  /** What happened later is faded; empty shows everything. */
  until: string
}

export default function StoryGraph({ graph, selected, select, until }: Props) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const [opened, setOpened] = useState<ReadonlySet<string>>(new Set())
  const frame = useRef<HTMLDivElement>(null)
  const [size, setSize] = useState({ width: 600, height: 600 })
  useLayoutEffect(() => {
    if (frame.current) setSize({ width: frame.current.clientWidth, height: frame.current.clientHeight })
  }, [])
  const placed = useMemo(() => place(graph, opened, size), [graph, opened, size])
  const reached = useMemo(() => {
    if (until === '') return undefined
    const end = Date.parse(until)
    const ids = new Set<string>()
    for (const e of placed.edges) {
      if (e.time && Date.parse(e.time) > end) continue
      ids.add(e.from)
      ids.add(e.to)
    }
    return ids
  }, [placed, until])
  const nodes: Shown[] = placed.nodes.map((node) => ({
    id: node.id, type: 'entity', position: { x: node.x, y: node.y }, width: nodeWidth, height: nodeHeight, draggable: false, connectable: false, deletable: false,
    ariaLabel: `${name('nodeKind', node.kind)} ${node.label}`,
    data: { node, selected: node.id === selected, faded: reached !== undefined && !reached.has(node.id), direction: placed.direction },
  }))
  const edges: Edge[] = placed.edges.map((edge) => ({
    id: edge.id, source: edge.from, target: edge.to, label: name('relation', edge.label), markerEnd: { type: MarkerType.ArrowClosed }, focusable: false, deletable: false,
    style: reached && !(reached.has(edge.from) && reached.has(edge.to)) ? { opacity: 0.2 } : undefined,
  }))
  const pick = (id: string) => {
    const node = placed.nodes.find((n) => n.id === id)
    if (!node) return
    if (node.members) setOpened(new Set([...opened, id]))
    else select(node)
  }
  return (
    <div
      ref={frame} className={styles.frame} data-testid="story-graph" role="group" aria-label={t('graph.label')}
      onKeyDown={(event) => {
        const id = (event.target as Element).closest('.react-flow__node')?.getAttribute('data-id')
        if (id && (event.key === 'Enter' || event.key === ' ')) {
          event.preventDefault()
          pick(id)
        }
      }}
    >
      <ReactFlow
        // Another shape of the graph is another view of it.
        key={`${placed.direction}${placed.nodes.length}`}
        nodes={nodes} edges={edges} nodeTypes={nodeTypes} onNodeClick={(_, node) => pick(node.id)} fitView fitViewOptions={{ padding: 0.08, maxZoom: 1 }} minZoom={0.1} maxZoom={1.6}
        nodesDraggable={false} nodesConnectable={false} elementsSelectable={false} nodesFocusable proOptions={{ hideAttribution: true }} onlyRenderVisibleElements
        ariaLabelConfig={{
          'controls.ariaLabel': t('graph.controls'), 'controls.zoomIn.ariaLabel': t('graph.zoomIn'), 'controls.zoomOut.ariaLabel': t('graph.zoomOut'), 'controls.fitView.ariaLabel': t('graph.fit'),
          'node.a11yDescription.default': t('graph.nodeHelp'),
        }}
      >
        <Background />
        <Controls showInteractive={false} position="bottom-right" />
      </ReactFlow>
    </div>
  )
}
