import { makeStyles, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Evidence as Item } from '../../api/types'
import { useName } from '../../i18n/names'
import { Status, type Tone } from '../../ui/marks'
import { PlainTable } from '../../ui/PlainTable'
import { sha256Of } from '../../ui/EventPanel'
import { commandLine } from '../../ui/processes'

const useStyles = makeStyles({
  entity: { overflowWrap: 'anywhere' },
  digest: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, color: tokens.colorNeutralForeground3 },
})

const verdictTones: Record<string, Tone> = { Malicious: 'bad', Suspicious: 'warn', NoThreatsFound: 'good' }
const stateTones: Record<string, Tone> = { Active: 'bad', Prevented: 'good', Remediated: 'good' }

function kindOf(item: Item): 'file' | 'process' | 'user' | 'network' {
  if (item.file) return 'file'
  if (item.process) return 'process'
  return item.user ? 'user' : 'network'
}

function entityOf(item: Item): string {
  if (item.file) return item.file.path ?? ''
  if (item.process) return commandLine(item.process) || item.process.name || ''
  if (item.user) return item.user.name || String(item.user.uid ?? '')
  const n = item.network
  return n ? [n.remoteIp ?? n.url, n.remotePort].filter((part) => part !== undefined && part !== '').join(':') : ''
}

/** What took part, what was thought of it and what became of it. */
export function Evidence({ items }: { items: Item[] }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const numbered = items.map((item, i) => ({ ...item, id: String(i) }))
  return (
    <PlainTable
      label={t('alert.evidence')} items={numbered} rowId={(i) => i.id} rowTestid="evidence-row"
      columns={[
        {
          id: 'entity', header: t('evidence.entity'), cell: (i) => (
            <div className={styles.entity}>
              <div data-testid="evidence-entity">{entityOf(i)}</div>
              {i.file && sha256Of(i.file) !== '' && <div className={styles.digest}>{t('file.digest', { digest: sha256Of(i.file) })}</div>}
            </div>
          ),
        },
        { id: 'kind', header: t('evidence.kind'), tight: true, cell: (i) => name('entity', kindOf(i)) },
        { id: 'verdict', header: t('evidence.verdict'), tight: true, cell: (i) => i.verdict && <Status tone={verdictTones[i.verdict] ?? 'neutral'} testid="evidence-verdict">{name('verdict', i.verdict)}</Status> },
        { id: 'state', header: t('evidence.state'), tight: true, cell: (i) => i.state && <Status tone={stateTones[i.state] ?? 'neutral'} testid="evidence-state">{name('remediation', i.state)}</Status> },
      ]}
    />
  )
}
