import { makeStyles, Text, tokens } from '@fluentui/react-components'
import { useTranslation } from 'react-i18next'
import type { AlertStory } from '../../api/incidents'
import { useFormat, useName, useTitle } from '../../i18n/names'
import { Facts } from '../../ui/Facts'
import { Panel } from '../../ui/Panel'

const useStyles = makeStyles({
  logic: {
    fontFamily: tokens.fontFamilyMonospace, fontSize: tokens.fontSizeBase200, lineHeight: tokens.lineHeightBase300, whiteSpace: 'pre-wrap', overflowWrap: 'anywhere', margin: 0,
    padding: tokens.spacingHorizontalM, backgroundColor: tokens.colorNeutralBackground3, borderRadius: tokens.borderRadiusMedium, maxHeight: '320px', overflowY: 'auto',
  },
  heading: { margin: 0, fontSize: tokens.fontSizeBase300, fontWeight: tokens.fontWeightSemibold },
})

/** The rule that matched: what it is about, what it looks for, and what it found here. */
export function Rule({ alert }: { alert: AlertStory }) {
  const styles = useStyles()
  const { t } = useTranslation()
  const name = useName()
  const title = useTitle()
  const format = useFormat()
  const { rule } = alert
  if (!rule || rule.id === '') return null
  const say = (key: string, value: string) => {
    if (key === 'sensitive') return format.list(value.split(', ').map((kind) => name('sensitivity', kind)))
    return key === 'actionType' ? name('action', value) : value
  }
  const logic = name('ruleLogic', rule.logic)
  const known = name('ruleAbout', rule.id)
  const about = known === rule.id ? rule.about ?? '' : known
  const matched = Object.entries(rule.matched ?? {})
  return (
    <Panel title={t('alert.rule')}>
      <Facts facts={[
        { label: t('alert.ruleName'), value: title(rule.name), testid: 'alert-rule' },
        { label: t('alert.ruleId'), value: rule.id },
        { label: t('alert.ruleVersion'), value: rule.version },
      ]}
      />
      {about !== '' && <Text data-testid="rule-about">{about}</Text>}
      {matched.length > 0 && (
        <>
          <h3 className={styles.heading}>{t('alert.matched')}</h3>
          <Facts facts={matched.map(([key, value]) => ({ label: name('eventField', key), value: say(key, value), testid: 'rule-matched' }))} />
        </>
      )}
      {rule.logic && (
        <>
          <h3 className={styles.heading}>{t('alert.logic')}</h3>
          <pre className={styles.logic} data-testid="rule-logic" tabIndex={0}>{logic}</pre>
        </>
      )}
    </Panel>
  )
}
