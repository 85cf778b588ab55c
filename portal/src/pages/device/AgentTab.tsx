import { Badge, makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { DeviceDetail } from '../../api/types'
import { useFormat, useName } from '../../i18n/names'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'

const useStyles = makeStyles({
  field: { fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200 },
  dim: { color: tokens.colorNeutralForeground3 },
  value: { display: 'inline-flex', flexWrap: 'wrap', gap: tokens.spacingHorizontalS, alignItems: 'center' },
})

const notFields = ['managed', 'conditions', 'settings', 'time']

/** The health report as `komainu health` prints it, field by field. */
export function AgentTab({ device }: { device: DeviceDetail }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const format = useFormat()
  const report = device.health
  if (!report) return <Panel title={t('agent.report')}><Text className={styles.dim}>{t('agent.noReport')}</Text></Panel>

  const text = (value: unknown): string => {
    if (typeof value === 'boolean') return value ? t('value.yes') : t('value.no')
    if (typeof value === 'number') return format.number(value)
    if (Array.isArray(value)) {
      return value.map((v: unknown) => (typeof v === 'object' && v !== null && 'key' in v && 'value' in v ? `${String(v.key)}: ${String(v.value)}` : String(v))).join('; ')
    }
    return value === null || value === undefined ? '' : String(value)
  }
  const managed = report.managed ?? []
  const fields = Object.entries(report).filter(([key]) => !notFields.includes(key)).map(([key, value]) => ({ key, value: text(value) }))
  return (
    <Panel title={t('agent.report')} actions={<Text size={200} className={styles.dim}>{t('agent.reportedAt', { time: format.time(report.time ?? device.healthAt) })}</Text>}>
      <PlainTable
        label={t('agent.report')} items={fields} rowId={(f) => f.key} rowTestid="health-row"
        columns={[
          { id: 'label', header: t('agent.field'), cell: (f) => name('healthField', f.key) },
          { id: 'value', header: t('agent.value'), cell: (f) => <span className={styles.value}><span data-testid={`health-${f.key}`}>{f.value}</span>{managed.includes(f.key) && <Badge appearance="outline">{t('agent.managed')}</Badge>}</span> },
          { id: 'key', header: t('agent.key'), cell: (f) => <code className={styles.field}>{f.key}</code> },
        ]}
      />
    </Panel>
  )
}
