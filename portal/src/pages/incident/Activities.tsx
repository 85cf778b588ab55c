import { Text } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { Activity } from '../../api/incidents'
import { useName, useTitle } from '../../i18n/names'
import { RouteLink } from '../../ui/links'
import { Moment } from '../../ui/marks'
import { Panel } from '../../ui/Panel'
import { PlainTable } from '../../ui/PlainTable'

/** Who changed what, newest first. */
export function Activities({ items }: { items: Activity[] }) {
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  // Values have names of their own kind.
  const value = (a: Activity, v: string | undefined) => {
    if (v === undefined || v === '') return ''
    if (a.action === 'created') return title(v)
    if (a.action === 'severity') return name('severity', v)
    if (a.action === 'status') return name(a.alert ? 'alertStatus' : 'incidentStatus', v)
    if (a.action === 'classification') return name('classification', v)
    return a.action === 'determination' ? name('determination', v) : v
  }
  const numbered = items.map((item, i) => ({ ...item, key: item.id ?? String(i) })).sort((a, b) => Date.parse(b.at) - Date.parse(a.at))
  return (
    <Panel title={t('incident.activities')}>
      {numbered.length === 0 ? <Text>{t('incident.noActivities')}</Text> : (
        <PlainTable
          label={t('incident.activities')} items={numbered} rowId={(a) => a.key} rowTestid="activity-row"
          columns={[
            { id: 'at', header: t('activity.at'), tight: true, cell: (a) => <Moment time={a.at} /> },
            { id: 'actor', header: t('activity.actor'), tight: true, cell: (a) => name('actor', a.actor) },
            { id: 'what', header: t('activity.what'), cell: (a) => name('activity', a.action) },
            { id: 'from', header: t('activity.from'), cell: (a) => value(a, a.from) },
            { id: 'to', header: t('activity.to'), cell: (a) => value(a, a.to) },
            { id: 'alert', header: t('alert.one'), cell: (a) => a.alert && <RouteLink to={`/alerts/${a.alert}`}>{a.alert}</RouteLink> },
          ]}
        />
      )}
    </Panel>
  )
}
